"""Tests of the paper's convolutional network for CIFAR-10."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.parameter_groups import assign
from l2l_keras.tasks import cifar_convnet
from l2l_keras.tasks.paper.images import load_images

SPLITS = ("train", "validation", "test")
KEY = tf.constant([3, 4])
DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")
needs_cifar = pytest.mark.skipif(
    DATA_DIR is None or not (Path(DATA_DIR) / "cifar10").is_dir(),
    reason="L2L_KERAS_DATA_DIR does not name a folder with CIFAR-10",
)


def as_bytes(images):
    """Minibatches' pixels as they are stored."""
    return [image.tobytes() for image in np.round(255 * images.numpy()).astype("uint8")]


@pytest.fixture(name="images", scope="module")
def images_fixture():
    """All of CIFAR-10: training and test images and labels."""
    return load_images("cifar10", {"train": "train", "test": "test"}, DATA_DIR, download=False)


@pytest.fixture(name="task", scope="module")
def task_fixture():
    return cifar_convnet(data_dir=DATA_DIR, download=False)


@pytest.fixture(name="subset", scope="module")
def subset_fixture():
    """A small network for three labels, in an order of their own."""
    labels = (7, 0, 3)
    return cifar_convnet(labels, (2, 3), 4, data_dir=DATA_DIR, download=False, batch_size=500)


@needs_cifar
class TestTask:
    def test_it_is_the_network_of_the_paper(self, task):
        convolutions = 9 * 3 * 16 + 9 * 16 * 16 + 9 * 16 * 16 + 3 * 2 * 16
        assert task.size == convolutions + 4 * 4 * 16 * 32 + 2 * 32 + 32 * 10 + 10 == 13_722
        assert (task.name, task.functions) == ("cifar_convnet", 1)
        parameters, state = task.sample("train", 0)
        images, labels = task.batch("train", KEY)
        assert images.shape == (128, 32, 32, 3)
        assert images.dtype == tf.float32
        assert 0 <= images.numpy().min() < images.numpy().max() <= 1
        losses, gradient, _ = task.loss_and_gradient(parameters, state, (images, labels))
        # Of one that knows nothing of ten kinds.
        assert losses.shape == (1,)
        assert float(losses[0]) == pytest.approx(math.log(10), abs=1.0)
        assert all(np.any(part) for part in task.unflatten(gradient))

    def test_paths_of_the_convolutional_part_and_of_no_other_contain_conv(self, task, subset):
        for some, filters in ((task, (16, 16, 16)), (subset, (2, 3))):
            groups = assign(some.layout, ["conv", ".*"])
            # A kernel, γ and β for each convolution come first; then the dense layers' five.
            assert groups == ["conv"] * 3 * len(filters) + [".*"] * 5
            for weight, group in zip(some.layout, groups, strict=True):
                assert len(weight.shape) == 4 or group == ".*" or weight.shape[0] in filters

    def test_images_keep_their_labels(self, task, images):
        known = {
            image.tobytes(): label
            for part in images.values()
            for image, label in zip(*part, strict=True)
        }
        for split in SPLITS:
            pixels, labels = task.batch(split, KEY)
            for image, label in zip(as_bytes(pixels), labels.numpy(), strict=True):
                assert known[image] == label

    def test_splits_are_disjoint(self, task, images):
        place = {image.tobytes(): k for k, image in enumerate(images["train"][0])}
        test = {image.tobytes() for image in images["test"][0]}
        seen = {
            split: {
                image
                for step in range(30)
                for image in as_bytes(task.batch(split, tf.constant([0, step]))[0])
            }
            for split in SPLITS
        }
        assert seen["test"] <= test
        assert not (seen["train"] | seen["validation"]) & test
        # The first nine tenths of the training images, and the last.
        bound = 0.9 * len(images["train"][0])
        assert max(place[image] for image in seen["train"]) < bound
        assert min(place[image] for image in seen["validation"]) >= bound

    def test_a_subset_has_its_labels_only_counted_in_their_order(self, subset, images):
        known = {
            image.tobytes(): (7, 0, 3).index(label)
            for part in images.values()
            for image, label in zip(*part, strict=True)
            if label in (7, 0, 3)
        }
        for split in SPLITS:
            pixels, labels = subset.batch(split, KEY)
            assert set(labels.numpy()) == {0, 1, 2}
            for image, label in zip(as_bytes(pixels), labels.numpy(), strict=True):
                assert known[image] == label
        assert subset.layout[-1].shape == (3,)
        assert subset.size == 27 * 2 + 2 * 2 + 18 * 3 + 2 * 3 + 64 * 3 * 4 + 2 * 4 + 4 * 3 + 3


class TestErrors:
    @pytest.mark.parametrize("labels", [(3,), (), (1, 1), (1, 2, 10), (-1, 2)], ids=str)
    def test_labels_that_are_none_are_refused(self, labels, tmp_path):
        with pytest.raises(ValueError, match="`labels` must be two or more different.*Received: "):
            cifar_convnet(labels, data_dir=str(tmp_path), download=False)

    @pytest.mark.parametrize(
        "arguments", [{"filters": ()}, {"filters": (16, 0)}, {"units": 0}, {"units": 2.5}], ids=str
    )
    def test_layers_that_are_none_are_refused(self, arguments, tmp_path):
        with pytest.raises(ValueError, match="`filters` and `units` must be .*Received: filters="):
            cifar_convnet(data_dir=str(tmp_path), download=False, **arguments)

    def test_a_missing_data_set_is_said_at_once(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="'cifar10' could not be read") as error:
            cifar_convnet(data_dir=str(tmp_path), download=False)
        assert str(tmp_path) in str(error.value)
        assert list(tmp_path.iterdir()) == []


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
