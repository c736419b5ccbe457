"""Tests of what `MetaModel.fit` shows: Keras' progress bar, and TensorBoard."""

import keras
import pytest
import tensorflow as tf

from l2l_keras.meta import MetaModel, Windows
from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.tasks import Quadratic


@pytest.fixture(name="meta_model")
def meta_model_fixture(eagerly):
    rule, task = CoordinatewiseLSTM(units=(2,), seed=0), Quadratic(dimension=2, functions=2)
    meta_model = MetaModel(rule, task, horizon=4, windows=Windows(unroll=2))
    meta_model.compile(keras.optimizers.Adam(1e-3))
    return meta_model


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_progress_counts_windows(meta_model, verbose, capsys):
    meta_model.fit(epochs=2, windows=3, validation_episodes=1, verbose=verbose)
    shown = capsys.readouterr().out
    assert "Epoch 2/2" in shown and "3/3" in shown
    assert "val_final_loss: " in shown


def test_tensorboard_shows_losses_and_weights(meta_model, tmp_path):
    board = keras.callbacks.TensorBoard(str(tmp_path), histogram_freq=1, update_freq="batch")
    meta_model.fit(epochs=2, windows=3, validation_episodes=1, verbose=0, callbacks=[board])
    tags = {
        value.tag
        for file in tmp_path.rglob("events*")
        for record in tf.data.TFRecordDataset(str(file))
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
    }
    assert {"batch_loss", "epoch_loss", "epoch_final_loss", "epoch_learning_rate"} <= tags
    assert f"{meta_model.rule.name}/kernel_0/histogram" in tags


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
