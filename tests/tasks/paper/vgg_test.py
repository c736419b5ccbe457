"""Tests of the features of VGG16."""

import keras
import pytest

from l2l_keras.tasks.paper.vgg import feature_network


def test_only_the_needed_layers_are_built():
    network = feature_network(None, 16, {"block1_conv1", "block2_conv1"})
    assert network.count_params() == 64 * 28 + 64 * 577 + 128 * 577
    assert not network.trainable_variables
    shapes = {name: tuple(output.shape) for name, output in network.output.items()}
    assert shapes == {"block1_conv1": (None, 16, 16, 64), "block2_conv1": (None, 8, 8, 128)}


def test_wrong_weights_are_reported_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "other.weights.h5"
    with pytest.raises(FileNotFoundError, match="No weights of VGG16 at .*other.weights.h5"):
        feature_network(str(path), 16, {"block1_conv1"})
    path.write_text("No weights.")
    with pytest.raises(ValueError, match="of VGG16 could not be read: ") as error:
        feature_network(str(path), 16, {"block1_conv1"})
    assert "\n" not in str(error.value)

    def fail(**_):
        raise Exception("URL fetch failure on https://...\nand more")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(FileNotFoundError, match="'imagenet' of VGG16 could not be read: URL.*[.]$"):
        feature_network("imagenet", 16, {"block1_conv1"})


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
