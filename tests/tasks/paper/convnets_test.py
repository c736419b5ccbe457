"""Tests of the paper's convolutional network for CIFAR-10."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.parameter_groups import assign
from l2l_keras.tasks import cifar_convnet, digits_convnet
from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.paper import convnets
from l2l_keras.tasks.paper.images import embedded_digits, load_images

KEY = tf.constant([3, 4])
DATA_DIR = os.environ.get("L2L_KERAS_DATA_DIR")


@pytest.fixture(name="task_and_data", scope="module")
def task_and_data_fixture():
    """The task, and the images and labels of each split that it loads."""
    if DATA_DIR is None or not (Path(DATA_DIR) / "cifar10").is_dir():
        pytest.skip("L2L_KERAS_DATA_DIR does not name a folder with CIFAR-10")
    data = {}

    def load(*arguments):
        data.update(load_images(*arguments))
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convnets, "load_images", load)
        return cifar_convnet(data_dir=DATA_DIR, download=False), data


class TestCifar:
    def test_it_is_the_network_of_the_paper(self, task_and_data):
        task, _ = task_and_data
        convolutions = 9 * 3 * 16 + 9 * 16 * 16 + 9 * 16 * 16 + 3 * 2 * 16
        assert task.size == convolutions + 4 * 4 * 16 * 32 + 2 * 32 + 32 * 10 + 10 == 13_722
        assert (task.name, task.functions) == ("cifar_convnet", 1)
        parameters, state = task.sample("train", 0)
        images, labels = task.batch("train", KEY)
        assert images.shape == (128, 32, 32, 3)
        assert images.dtype == tf.float32
        assert 0 <= images.numpy().min() < images.numpy().max() <= 1
        losses, gradient, _ = task.loss_and_gradient(parameters, state, (images, labels))
        # The loss of chance.
        assert losses.shape == (1,)
        assert float(losses[0]) == pytest.approx(math.log(10), abs=1.0)
        assert all(np.any(part) for part in task.unflatten(gradient))

    def test_splits_are_disjoint_and_images_keep_their_labels(self, task_and_data):
        task, data = task_and_data
        assert len(data["train"][0]) == 9 * len(data["validation"][0])
        known = {
            split: {image.tobytes(): label for image, label in zip(*data[split], strict=True)}
            for split in SPLITS
        }
        assert len(set().union(*known.values())) == sum(map(len, known.values()))
        for split, step in itertools.product(SPLITS, range(30)):
            images, labels = task.batch(split, tf.constant([0, step]))
            pixels = np.round(255 * images.numpy()).astype("uint8")
            for image, label in zip(pixels, labels.numpy(), strict=True):
                assert known[split][image.tobytes()] == label


def test_paths_of_convolutional_variables_only_contain_conv():
    for filters in ((8, 8, 8), (2, 3)):
        task = digits_convnet(filters=filters)
        groups = assign(task.layout, ["conv", ".*"])
        # A kernel, γ and β for each convolution; then the five variables of the dense layers.
        assert groups == ["conv"] * 3 * len(filters) + [".*"] * 5
        for weight, group in zip(task.layout, groups, strict=True):
            assert len(weight.shape) == 4 or group == ".*" or weight.shape[0] in filters


def test_a_subset_of_labels_is_renumbered_in_its_order():
    task = digits_convnet((7, 0, 3), (2, 3), 4, batch_size=500)
    known = {
        image.tobytes(): (7, 0, 3).index(label)
        for part in embedded_digits().values()
        for image, label in zip(*part, strict=True)
        if label in (7, 0, 3)
    }
    for split in SPLITS:
        images, labels = task.batch(split, KEY)
        assert set(labels.numpy()) == {0, 1, 2}
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            assert known[image.tobytes()] == label
    assert task.layout[-1].shape == (3,)
    assert task.size == 9 * 2 + 2 * 2 + 18 * 3 + 2 * 3 + 12 * 4 + 2 * 4 + 4 * 3 + 3


@pytest.mark.parametrize("labels", [(3,), (), (1, 1), (1, 2, 10), (-1, 2)], ids=str)
def test_wrong_labels_are_refused(labels, tmp_path):
    with pytest.raises(ValueError, match="`labels` must be two or more different.*Received: "):
        cifar_convnet(labels, data_dir=str(tmp_path), download=False)


@pytest.mark.parametrize(
    "arguments", [{"filters": ()}, {"filters": (16, 0)}, {"units": 0}, {"units": 2.5}], ids=str
)
def test_wrong_layers_are_refused(arguments, tmp_path):
    with pytest.raises(ValueError, match="`filters` and `units` must be .*Received: filters="):
        cifar_convnet(data_dir=str(tmp_path), download=False, **arguments)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
