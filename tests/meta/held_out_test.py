"""Tests of meta-training on examples that optimizees do not train on."""

import keras
import numpy as np
import pytest
from keras import layers

from l2l_keras.meta import BackPropagation, MetaModel, PersistentEvolution, Windows
from l2l_keras.tasks import KerasTask, Mixture, Quadratic
from l2l_keras.tasks.base import SPLITS
from tests.meta.problems import RATE, Descent

ONES = np.ones((30, 1), "float32")


def opposed():
    """A task that holds out examples of the opposite: what helps with one does harm with others."""

    def model_fn():
        dense = layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), dense])
        model.compile(loss="mse", metrics=["mae"])
        return model

    data = dict.fromkeys(SPLITS, (ONES, ONES))
    held_out = dict.fromkeys(SPLITS, (ONES, -ONES))
    options = {"validation_data": held_out, "batch_size": 5, "same_start": True}
    return KerasTask(model_fn, dataset=data, **options)


def meta_train(task, meta_loss_on, estimator=None, windows=10, rate=0.01):
    rule = Descent()
    model = MetaModel(rule, task, 4, estimator, Windows(unroll=4), meta_loss_on=meta_loss_on)
    model.compile(keras.optimizers.Adam(rate))
    history = model.fit(epochs=1, windows=windows, validation_episodes=1, verbose=0).history
    return float(rule.log_rate.value), {name: values[0] for name, values in history.items()}


def weights(steps=4):
    """The weight of each step, from 0 towards 1: what is left shrinks by the same factor."""
    return 1.0 - (1.0 - 2.0 * RATE) ** np.arange(1, steps + 1)


ESTIMATORS = [
    BackPropagation(),
    BackPropagation(second_derivatives=True),
    PersistentEvolution(pairs=2, sigma=1e-3),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["first", "second", "evolution"])
def test_the_rule_learns_what_helps_with_those_examples(estimator):
    start = float(Descent().log_rate.value)
    rate, history = meta_train(opposed(), "training", estimator)
    assert rate > start + 0.05
    other_rate, other_history = meta_train(opposed(), "validation", estimator)
    assert other_rate < start - 0.05
    # A first window's losses, which change little from one to the next.
    np.testing.assert_allclose(history["loss"], np.mean((1 - weights()) ** 2), rtol=0.02)
    np.testing.assert_allclose(other_history["loss"], np.mean((1 + weights()) ** 2), rtol=0.02)


def test_validation_reports_the_end_of_episodes_on_examples_held_out():
    _, history = meta_train(opposed(), "training", rate=0.0)
    weight = weights()
    expected = {
        "val_loss": np.mean((1 - weight) ** 2),
        "val_final_loss": (1 - weight[-1]) ** 2,
        "val_held_out_loss": (1 + weight[-1]) ** 2,
        "val_held_out_mae": 1 + weight[-1],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], value, rtol=1e-5)


def test_what_not_all_tasks_hold_out_is_not_reported():
    mixture = Mixture({"opposed": opposed(), "quadratic": Quadratic(2)})
    model = MetaModel(Descent(), mixture, 4, windows=Windows(unroll=4))
    model.compile(keras.optimizers.Adam(0.0))
    history = model.fit(epochs=1, windows=1, validation_episodes=1, verbose=0).history
    assert sorted(history) == ["loss", "skipped", "val_final_loss", "val_loss"]
    with pytest.raises(ValueError, match="tasks that hold examples out.*Received: .*'quadratic'"):
        MetaModel(Descent(), mixture, 4, windows=Windows(unroll=4), meta_loss_on="validation")
    with pytest.raises(ValueError, match="`meta_loss_on` must be.*Received: meta_loss_on='test'"):
        MetaModel(Descent(), opposed(), meta_loss_on="test")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
