"""Tests of the classifiers of small images."""

import math
import os

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from l2l_keras.tasks import digits_mlp, image_mlp, mnist_mlp
from l2l_keras.tasks.paper.images import load_images

SPLITS = ("train", "validation", "test")
KEY = tf.constant([3, 4])
DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")
needs_mnist = pytest.mark.skipif(
    DATA_DIR is None, reason="L2L_KERAS_DATA_DIR does not name a folder with MNIST"
)


def numpy_cross_entropy(parameters, images, labels, units):
    """The paper's network, one sigmoid layer, in float64."""
    x = images.reshape(len(images), -1).astype("float64")
    parts = np.split(
        parameters.astype("float64"),
        np.cumsum([x.shape[1] * units, units, 10 * units]),
    )
    hidden = 1 / (1 + np.exp(-(x @ parts[0].reshape(-1, units) + parts[1])))
    logits = hidden @ parts[2].reshape(units, 10) + parts[3]
    log_sums = np.log(np.exp(logits).sum(axis=1))
    return np.mean(log_sums - logits[np.arange(len(labels)), labels])


class TestDigits:
    def test_the_network_is_that_of_the_arguments(self):
        assert digits_mlp().size == 64 * 20 + 20 + 20 * 10 + 10
        assert digits_mlp().functions == 1
        deep = digits_mlp(layers=(7, 5), activation="relu", batch_size=16)
        assert deep.size == 64 * 7 + 7 + 7 * 5 + 5 + 5 * 10 + 10
        assert deep.batch("train", KEY)[0].shape == (16, 8, 8, 1)

    @pytest.mark.parametrize("layers", [40, (0,), (2.5,), "relu"])
    def test_layers_that_are_none_are_refused(self, layers):
        with pytest.raises(ValueError, match="`layers` must be .* Received: "):
            digits_mlp(layers=layers)

    def test_examples_are_those_of_scikit_learn(self):
        digits = load_digits()
        labels = {
            image.tobytes(): label for image, label in zip(*digits_arrays(digits), strict=True)
        }
        task = digits_mlp()
        for split in SPLITS:
            images, targets = task.batch(split, KEY)
            assert images.shape == (128, 8, 8, 1)
            assert images.dtype == tf.float32
            assert 0 <= images.numpy().min() < images.numpy().max() == 1
            for image, target in zip(images.numpy(), targets.numpy(), strict=True):
                assert labels[(image[..., 0] * 16).astype("uint8").tobytes()] == target

    def test_the_loss_is_the_cross_entropy_of_a_sigmoid_network(self):
        task = digits_mlp()
        parameters, state = task.sample("train", 0)
        images, labels = task.batch("train", KEY)
        losses, _ = task.loss(parameters, state, (images, labels))
        expected = numpy_cross_entropy(parameters.numpy(), images.numpy(), labels.numpy(), units=20)
        np.testing.assert_allclose(losses, [expected], rtol=1e-5)
        assert expected == pytest.approx(math.log(10), abs=0.5)


class TestActivationMixture:
    """Optimizees that draw their activation."""

    NAMES = ("sigmoid", "relu", "tanh")

    def used(self, state):
        """The activation of each hidden layer."""
        shares = [np.asarray(part) for part in state]
        assert all(sorted(part) == [0.0, 0.0, 1.0] for part in shares)
        return [self.NAMES[int(np.argmax(part))] for part in shares]

    def test_each_has_one_and_all_occur(self):
        task = digits_mlp(layers=(3, 3), activation=self.NAMES, batch_size=8)
        drawn = [self.used(task.sample("train", seed)[1]) for seed in range(20)]
        assert {len(names) for names in drawn} == {2}
        assert {len(set(names)) for names in drawn} == {1}
        assert {names[0] for names in drawn} == set(self.NAMES)

    def test_a_seed_decides_it(self):
        drawn = []
        for _ in range(2):
            task = digits_mlp(layers=(3,), activation=self.NAMES, batch_size=8)
            drawn.append([self.used(task.sample("test", seed)[1]) for seed in range(6)])
        assert drawn[0] == drawn[1]

    def test_losses_and_gradients_are_those_of_the_plain_network(self):
        mixed = digits_mlp(layers=(4, 3), activation=self.NAMES, batch_size=16)
        batch = mixed.batch("train", KEY)
        seen = {}
        for seed in range(20):
            parameters, state = mixed.sample("train", seed)
            seen.setdefault(self.used(state)[0], (parameters, state))
        for name, (parameters, state) in seen.items():
            plain = digits_mlp(layers=(4, 3), activation=name, batch_size=16)
            assert plain.size == mixed.size
            # Biases that are not zero, and hidden units that are not dead.
            parameters = parameters + 0.1 * tf.random.stateless_normal(parameters.shape, KEY)
            losses, gradient, _ = mixed.loss_and_gradient(parameters, state, batch)
            expected, expected_gradient, _ = plain.loss_and_gradient(parameters, (), batch)
            np.testing.assert_allclose(losses, expected, rtol=1e-5)
            np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
        assert set(seen) == set(self.NAMES)

    def test_it_stays_as_training_goes_on(self):
        task = digits_mlp(layers=(3,), activation=self.NAMES, batch_size=8)
        parameters, state = task.sample("train", 0)
        _, next_state = task.loss(parameters, state, task.batch("train", KEY))
        assert self.used(next_state) == self.used(state)


def digits_arrays(digits):
    return digits.images.astype("uint8"), digits.target


class TestImages:
    def test_pixels_are_kept_as_bytes_and_scaled_in_the_minibatch(self):
        pixels = np.arange(200, dtype="uint8").reshape(50, 2, 2, 1)
        labels = np.arange(50, dtype="int32") % 10
        task = image_mlp(
            dict.fromkeys(SPLITS, (pixels, labels)), layers=(3,), batch_size=8, name="mine"
        )
        assert task.name == "mine"
        assert task.size == 4 * 3 + 3 + 3 * 10 + 10
        images, _ = task.batch("train", KEY)
        assert images.dtype == tf.float32
        first = np.round(255 * images.numpy()[:, 0, 0, 0])
        np.testing.assert_array_equal(first % 4, np.zeros(8))
        np.testing.assert_allclose(images[:, 1, 1, 0], (first + 3) / 255, rtol=1e-6)


class TestMnist:
    @needs_mnist
    def test_it_is_the_papers_network(self):
        task = mnist_mlp(data_dir=DATA_DIR, download=False)
        assert task.size == 784 * 20 + 20 + 20 * 10 + 10 == 15_910
        parameters, state = task.sample("train", 0)
        images, labels = task.batch("train", KEY)
        assert images.shape == (128, 28, 28, 1)
        assert 0 <= images.numpy().min() < images.numpy().max() <= 1
        losses, _ = task.loss(parameters, state, (images, labels))
        expected = numpy_cross_entropy(parameters.numpy(), images.numpy(), labels.numpy(), units=20)
        np.testing.assert_allclose(losses, [expected], rtol=1e-5)

    @needs_mnist
    def test_the_parts_are_those_of_mnist(self):
        parts = {"train": "train[:50000]", "validation": "train[50000:]", "test": "test"}
        data = load_images("mnist", parts, DATA_DIR, download=False)
        assert [len(data[split][0]) for split in SPLITS] == [50_000, 10_000, 10_000]
        assert data["train"][0].dtype == np.uint8
        counts = {split: np.bincount(data[split][1]) for split in SPLITS}
        # How often each digit comes up in MNIST's training and test images.
        np.testing.assert_array_equal(
            counts["train"] + counts["validation"],
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        )
        np.testing.assert_array_equal(
            counts["test"], [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        )

    @needs_mnist
    @pytest.mark.slow
    def test_pixels_are_averaged_in_squares(self):
        task = mnist_mlp(layers=(2,), data_dir=DATA_DIR, download=False, pool=14)
        assert task.size == 4 * 2 + 2 + 2 * 10 + 10
        images = load_images("mnist", dict.fromkeys(SPLITS, "test"), DATA_DIR, False)["test"][0]
        # Of 14 by 14 pixels each: the upper left, upper right, lower left and lower right.
        quarters = images.reshape(-1, 2, 14, 2, 14).mean(axis=(2, 4)).round().astype(int)
        known = {tuple(quarter.ravel()) for quarter in quarters}
        pooled, _ = task.batch("test", KEY)
        assert pooled.shape == (128, 2, 2, 1)
        found = {tuple(image.ravel()) for image in np.round(255 * pooled.numpy()).astype(int)}
        assert found <= known
        assert len(found) > 100

    @pytest.mark.parametrize("pool", [0, 3])
    def test_squares_that_do_not_fit_are_refused(self, pool, tmp_path):
        with pytest.raises(ValueError, match=f"`pool` must be a divisor of 28. Received: {pool}"):
            mnist_mlp(data_dir=str(tmp_path), download=False, pool=pool)

    def test_a_missing_data_set_is_said_at_once(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="'mnist' could not be read") as error:
            mnist_mlp(data_dir=str(tmp_path), download=False)
        assert str(tmp_path) in str(error.value)
        assert "download=False" in str(error.value)
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_data_set_is_said_at_once(self, tmp_path):
        parts = dict.fromkeys(SPLITS, "train")
        with pytest.raises(FileNotFoundError, match="'no_such_images' could not be read"):
            load_images("no_such_images", parts, str(tmp_path), download=False)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
