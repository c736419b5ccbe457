"""Tests of the mixture of the general presets."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.evaluation import testbed
from l2l_keras.meta import MetaModel
from l2l_keras.rules import TensorwiseLSTM
from l2l_keras.tasks import Mixture, Quadratic
from l2l_keras.tasks.general.mixture import general

DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")
needs_data = pytest.mark.skipif(
    not DATA_DIR, reason="MNIST is read from the folder named by L2L_KERAS_DATA_DIR."
)


@pytest.fixture(name="mixture", scope="module")
def mixture_fixture():
    return general(DATA_DIR, download=False)


@needs_data
def test_it_has_many_kinds_of_tasks(mixture):
    assert len(mixture.members) >= 20
    assert len(mixture.validation) >= 8
    assert not mixture.members.keys() & mixture.validation.keys()
    assert all(task.size <= 125_000 for task in mixture.members.values())


@needs_data
def test_some_of_its_kinds_can_be_chosen(mixture):
    some = general(DATA_DIR, download=False, kinds=["bag", "shallow"])
    assert list(some.members) == ["bag", "shallow"]
    assert list(some.validation) == list(mixture.validation)
    with pytest.raises(ValueError, match=r"`kinds` must be among .*Received: \['none'\]"):
        general(DATA_DIR, download=False, kinds=["bag", "none"])
    with pytest.raises(ValueError, match=r"`validation` must be among .*Received: \['bag'\]"):
        general(DATA_DIR, download=False, validation=["bag"])


def test_what_is_generated_needs_no_data(tmp_path):
    some = general(str(tmp_path), download=False, kinds=["regions"], validation=["words", "kinds"])
    assert list(some.members) == ["regions"]
    assert list(some.validation) == ["words", "kinds"]
    with pytest.raises(FileNotFoundError):
        general(str(tmp_path), download=False, kinds=["wide"], validation=["words"])


@needs_data
def test_none_of_its_tasks_is_a_problem_of_the_testbed(mixture):
    sizes = {task.size for task in (*mixture.members.values(), *mixture.validation.values())}
    names = {*mixture.members, *mixture.validation}
    assert not names & set(testbed.names())
    assert not sizes & {testbed.problem(name).size for name in testbed.names(stored=False)}


@needs_data
def test_every_task_has_finite_losses_and_gradients_in_every_split(mixture):
    for name, task in {**mixture.members, **mixture.validation}.items():
        for split in ("train", "validation"):
            optimizee = task.sample(split, 0)
            batch = task.batch(split, tf.constant([0, 1]))
            losses, gradient, _ = task.loss_and_gradient(*optimizee, batch)
            assert np.isfinite(losses).all(), name
            assert np.isfinite(gradient).all(), name
            assert np.abs(gradient).max() > 0.0, name


@needs_data
def test_optimizees_differ_in_their_activation(mixture):
    task = mixture.members["shallow"]
    shares = {tuple(task.sample("train", seed)[1][0].numpy()) for seed in range(12)}
    assert len(shares) > 2
    assert all(sum(share) == 1.0 for share in shares)


@needs_data
def test_some_weights_are_far_off(mixture):
    task = mixture.members["badly_scaled"]
    first = task.layout[0].shape[0] * task.layout[0].shape[1]
    sizes = [float(np.std(task.sample("train", seed)[0][:first])) for seed in range(12)]
    usual = float(np.std(mixture.members["shallow"].sample("train", 0)[0][:first]))
    assert min(sizes) < usual / 2.0 and max(sizes) > 2.0 * usual


@needs_data
def test_a_rule_is_meta_trained_on_some_of_it(mixture):
    names = ("teacher", "table")
    some = Mixture({name: mixture.members[name] for name in names})
    rule = TensorwiseLSTM(8, seed=0)
    model = MetaModel(
        rule,
        some,
        horizon=(20, 40),
        unroll=20,
        parallel=2,
        optimizees=4,
        meta_loss="log_window",
        random_scale=1.0,
        random_scale_of="tensor",
        second_derivatives=True,
    )
    model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0))
    validation = tf.data.Dataset.range(1)
    before = model.evaluate(validation, verbose=0, return_dict=True)["loss"]
    history = model.fit(windows=30, validation_episodes=1, verbose=0).history
    assert history["skipped"] == [0]
    assert history["val_loss"][0] < 0.9 * before


def test_mixtures_need_tasks():
    task = Quadratic()
    mixture = Mixture({"a": task}, name="mine")
    assert mixture.validation == {"a": task}
    assert (mixture.name, mixture.size) == ("mine", task.size)
    for wrong in ({}, {"a": 1}):
        with pytest.raises(ValueError, match="`members` must be a dictionary of one task or more"):
            Mixture(wrong)
    with pytest.raises(ValueError, match="`validation` must be a dictionary"):
        Mixture({"a": task}, {})


def test_scales_of_layers_can_be_far_apart(tmp_path):
    mixture = general(str(tmp_path), download=False, kinds=["apart_classes"], validation=["words"])
    task = mixture.members["apart_classes"]
    ratios = []
    for seed in range(5):
        weights = task.unflatten(task.sample("train", seed)[0])
        kernels = [weight.numpy() for weight in weights if len(weight.shape) == 2]
        # Relative to the standard deviations that Glorot's initializer gives them.
        first, middle, last = (np.std(w) * np.sqrt(sum(w.shape) / 2.0) for w in kernels)
        assert first * last == pytest.approx(1.0, rel=0.25)
        assert middle == pytest.approx(1.0, rel=0.1)
        ratios.append(first / last)
    assert max(ratios) > 5.0 * min(ratios)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
