"""Tests of the mixture of the general presets."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.evaluation import testbed
from l2l_keras.meta import BackPropagation, MetaModel, Windows
from l2l_keras.rules import RNNprop, TensorwiseLSTM
from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.general.mixture import general

DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")


@pytest.fixture(name="mixture", scope="module")
def mixture_fixture():
    if not DATA_DIR:
        pytest.skip("MNIST is read from the folder named by L2L_KERAS_DATA_DIR.")
    return general(DATA_DIR, download=False)


def test_it_has_many_tasks_of_limited_size_and_none_of_the_testbed(mixture):
    every = {**mixture.members, **mixture.validation}
    assert len(every) == len(mixture.members) + len(mixture.validation) == 67 + 32
    assert mixture.size <= 125_000
    assert not set(every) & set(testbed.names())
    sizes = {testbed.problem(name).size for name in testbed.names(stored=False)}
    assert not {task.size for task in every.values()} & sizes


@pytest.mark.parametrize(("role", "split"), [("members", "train"), ("validation", "validation")])
def test_every_task_has_finite_losses_and_gradients(mixture, role, split):
    for name, task in getattr(mixture, role).items():
        batches = {split: task.batch(split, tf.constant([0, 1])) for split in SPLITS}
        assert all(np.isfinite(x).all() and np.isfinite(y).all() for x, y in batches.values()), name
        optimizee = task.sample(split, 0)
        losses, gradient, _ = task.loss_and_gradient(*optimizee, batches[split])
        assert np.isfinite(losses).all(), name
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 0.0, name


def test_chosen_tasks_need_only_their_own_data(tmp_path):
    def choose(kinds, validation):
        return general(str(tmp_path), download=False, kinds=kinds, validation=validation)

    mixture = choose(["regions", "bag"], ["words", "kinds"])
    assert list(mixture.members) == ["regions", "bag"]
    assert list(mixture.validation) == ["words", "kinds"]
    with pytest.raises(FileNotFoundError):
        choose(["wide"], ["words"])
    with pytest.raises(ValueError, match=r"`kinds` must be among .*Received: \['none'\]"):
        choose(["bag", "none"], ["words"])
    with pytest.raises(ValueError, match=r"`validation` must be among .*Received: \['bag'\]"):
        choose(["bag"], ["bag"])


@pytest.mark.parametrize(
    ("rule", "units", "kinds"),
    [
        (RNNprop, (4,), ["linear_classes"]),
        pytest.param(TensorwiseLSTM, 4, ["teacher", "table"], marks=pytest.mark.slow),
    ],
)
def test_a_rule_improves_by_meta_training_on_a_part_of_it(rule, units, kinds):
    model = MetaModel(
        rule(units, seed=0),
        general(kinds=kinds, validation=["linear_kinds"]),
        horizon=(5, 10),
        estimator=BackPropagation(second_derivatives=True),
        windows=Windows(5, "log_window", random_scale=1.0, random_scale_of="tensor"),
        parallel=2,
        optimizees=4,
    )
    model.compile(keras.optimizers.Adam(2e-2, global_clipnorm=1.0))
    before = model.evaluate(tf.data.Dataset.range(1), verbose=0, return_dict=True)["loss"]
    history = model.fit(windows=15, validation_episodes=1, verbose=0).history
    assert history["skipped"] == [0]
    assert history["val_loss"][0] < 0.9 * before


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
