"""Tests of the perceptrons that classify small images."""

import hashlib
import http.server
import math
import os
import threading

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from l2l_keras.tasks import digits_mlp, image_mlp, mnist_mlp
from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.paper import images as module
from l2l_keras.tasks.paper.images import load_images

KEY = tf.constant([3, 4])
DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")
NAMES = ("sigmoid", "relu", "tanh")


def numpy_cross_entropy(parameters, images, labels, units):
    """The loss of the paper's network, one sigmoid layer, in float64."""
    x = images.reshape(len(images), -1).astype("float64")
    parts = np.split(
        parameters.astype("float64"), np.cumsum([x.shape[1] * units, units, 10 * units])
    )
    hidden = 1 / (1 + np.exp(-(x @ parts[0].reshape(-1, units) + parts[1])))
    logits = hidden @ parts[2].reshape(units, 10) + parts[3]
    log_sums = np.log(np.exp(logits).sum(axis=1))
    return np.mean(log_sums - logits[np.arange(len(labels)), labels])


class TestDigits:
    def test_the_network_has_the_given_layers(self):
        assert digits_mlp().size == 64 * 20 + 20 + 20 * 10 + 10
        deep = digits_mlp(layers=(7, 5), activation="relu", batch_size=16)
        assert deep.size == 64 * 7 + 7 + 7 * 5 + 5 + 5 * 10 + 10
        assert deep.batch("train", KEY)[0].shape == (16, 8, 8, 1)

    @pytest.mark.parametrize("layers", [40, (0,), (2.5,), "relu"])
    def test_wrong_layers_are_refused(self, layers):
        with pytest.raises(ValueError, match="`layers` must be .* Received: "):
            digits_mlp(layers=layers)

    def test_examples_are_those_of_scikit_learn(self):
        digits = load_digits()
        pixels = digits.images.astype("uint8")
        known = {x.tobytes(): label for x, label in zip(pixels, digits.target, strict=True)}
        task = digits_mlp()
        for split in SPLITS:
            images, targets = task.batch(split, KEY)
            assert images.shape == (128, 8, 8, 1)
            assert images.dtype == tf.float32
            assert 0 <= images.numpy().min() < images.numpy().max() == 1
            for image, target in zip(images.numpy(), targets.numpy(), strict=True):
                assert known[(image[..., 0] * 16).astype("uint8").tobytes()] == target

    def test_the_loss_is_the_cross_entropy_of_a_sigmoid_network(self):
        task = digits_mlp()
        parameters, state = task.sample("train", 0)
        images, labels = task.batch("train", KEY)
        losses, _ = task.loss(parameters, state, (images, labels))
        expected = numpy_cross_entropy(parameters.numpy(), images.numpy(), labels.numpy(), units=20)
        np.testing.assert_allclose(losses, [expected], rtol=1e-5)
        assert expected == pytest.approx(math.log(10), abs=0.5)


def test_each_optimizee_draws_one_activation_for_all_of_its_hidden_layers():
    task, again = (digits_mlp((4, 3), NAMES, batch_size=16) for _ in range(2))
    batch = task.batch("train", KEY)
    optimizees = {}
    for seed in range(10):
        parameters, state = task.sample("train", seed)
        tf.nest.map_structure(np.testing.assert_array_equal, state, again.sample("train", seed)[1])
        first, second = (part.numpy().tolist() for part in state)
        assert first == second and sorted(first) == [0.0, 0.0, 1.0]
        optimizees[NAMES[first.index(1.0)]] = parameters, state
    assert set(optimizees) == set(NAMES)
    for name, (parameters, state) in optimizees.items():
        plain = digits_mlp((4, 3), name, batch_size=16)
        # Biases that are not zero, and hidden units that are not dead.
        parameters = parameters + 0.1 * tf.random.stateless_normal(parameters.shape, KEY)
        losses, gradient, after = task.loss_and_gradient(parameters, state, batch)
        expected, expected_gradient, _ = plain.loss_and_gradient(parameters, (), batch)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
        tf.nest.map_structure(np.testing.assert_array_equal, after, state)


def test_pixels_are_stored_as_bytes_and_scaled_in_the_minibatch():
    pixels = np.arange(200, dtype="uint8").reshape(50, 2, 2, 1)
    labels = np.arange(50, dtype="int32") % 10
    task = image_mlp(dict.fromkeys(SPLITS, (pixels, labels)), (3,), batch_size=8, name="mine")
    assert (task.name, task.size) == ("mine", 4 * 3 + 3 + 3 * 10 + 10)
    images, _ = task.batch("train", KEY)
    assert images.dtype == tf.float32
    first = np.round(255 * images.numpy()[:, 0, 0, 0])
    np.testing.assert_array_equal(first % 4, np.zeros(8))
    np.testing.assert_allclose(images[:, 1, 1, 0], (first + 3) / 255, rtol=1e-6)


class TestMnist:
    @pytest.mark.skipif(
        DATA_DIR is None, reason="L2L_KERAS_DATA_DIR does not name a folder with MNIST"
    )
    def test_the_task_is_the_paper_s_network_on_mnist(self, monkeypatch):
        data = {}

        def load(*arguments):
            data.update(load_images(*arguments))
            return data

        monkeypatch.setattr(module, "load_images", load)
        task = mnist_mlp(data_dir=DATA_DIR, download=False)
        assert task.size == 784 * 20 + 20 + 20 * 10 + 10
        # How often each digit occurs in MNIST's training and test images.
        train, validation, test = (np.bincount(labels) for _, labels in data.values())
        assert validation.sum() == 10_000
        digits = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert (train + validation).tolist() == digits
        assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        for split, (stored, _) in data.items():
            images, labels = task.batch(split, KEY)
            assert images.shape == (128, 28, 28, 1)
            assert 0 <= images.numpy().min() < images.numpy().max() <= 1
            known = {image.tobytes() for image in stored}
            found = np.round(255 * images.numpy()).astype("uint8")
            assert all(image.tobytes() in known for image in found)
        parameters, state = task.sample("train", 0)
        losses, _ = task.loss(parameters, state, (images, labels))
        expected = numpy_cross_entropy(parameters.numpy(), images.numpy(), labels.numpy(), units=20)
        np.testing.assert_allclose(losses, [expected], rtol=1e-5)

    @pytest.mark.parametrize("name", ["mnist", "cifar10", "no_such_images"])
    def test_missing_data_is_reported_in_one_line(self, name, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"'{name}' could not be read") as error:
            load_images(name, dict.fromkeys(SPLITS, "train"), str(tmp_path), download=False)
        assert str(tmp_path) in str(error.value)
        assert "download=False" in str(error.value)
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []


class Handler(http.server.BaseHTTPRequestHandler):
    """A proxy, behind which every address has the same file."""

    file = b"\1\2\3"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.file)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.file)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


class OnePixelImages(tfds.core.GeneratorBasedBuilder):
    """A data set of three images, whose labels are their pixels, to download."""

    VERSION = tfds.core.Version("1.0.0")
    URL = "http://host.invalid/images.bin"
    url_infos = {
        URL: tfds.core.download.checksums.UrlInfo(
            3, hashlib.sha256(Handler.file).hexdigest(), "images.bin"
        )
    }

    def _info(self):
        features = {"image": tfds.features.Image(shape=(1, 1, 1)), "label": np.int64}
        keys = ("image", "label")
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=keys
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.download(self.URL))}

    def _generate_examples(self, path):
        for pixel in path.read_bytes():
            yield pixel, {"image": np.full((1, 1, 1), pixel, "uint8"), "label": pixel}


class TestDownload:
    @pytest.fixture(name="proxy", autouse=True)
    def proxy_fixture(self, monkeypatch):
        """Names a proxy; there is none, so that no host can be reached."""
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)

        def proxy(port):
            for name in ("http_proxy", "https_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{port}")

        proxy(9)  # Nothing listens on this one.
        return proxy

    @pytest.mark.parametrize(
        "name, host",
        [
            ("mnist", "storage.googleapis.com"),
            ("cifar10", "www.cs.toronto.edu"),
            ("one_pixel_images", "host.invalid"),
        ],
    )
    def test_without_network_missing_data_is_reported_and_nothing_left(self, name, host, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"'{name}' .*=True.*: no connection to {host}"):
            load_images(name, {"train": "train"}, str(tmp_path), download=True)
        assert list(tmp_path.iterdir()) == []

    def test_missing_data_is_downloaded_once_through_a_proxy(self, proxy, tmp_path):
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            proxy(server.server_port)
            parts = {"train": "train[:2]", "test": "train[2:]"}
            first = load_images("one_pixel_images", parts, str(tmp_path), download=True)
            server.shutdown()
        proxy(9)
        again = load_images("one_pixel_images", parts, str(tmp_path), download=True)
        for data in (first, again):
            pixels = np.concatenate([data[split][0] for split in parts])
            assert sorted(pixels.ravel()) == list(Handler.file)
            for images, labels in data.values():
                np.testing.assert_array_equal(images.ravel(), labels)

    @pytest.mark.skipif(
        DATA_DIR is None, reason="L2L_KERAS_DATA_DIR does not name a folder with MNIST"
    )
    def test_stored_data_needs_no_network(self):
        images, labels = load_images("mnist", {"test": "test[:5]"}, DATA_DIR, download=True)["test"]
        assert images.shape == (5, 28, 28, 1) and labels.shape == (5,)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
