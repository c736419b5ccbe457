"""Features of VGG16, up to the last layer that is needed."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np


def feature_network(weights: str | None, size: int, layers: set[str]) -> keras.Model:
    """Returns a frozen VGG16 with average pooling, up to the last of the given convolutions.

    From images `[batch, size, size, 3]` to the outputs of `layers`, by name. `weights` are those of
    `NeuralArt`.
    """
    vgg = _vgg16(weights)
    convolutions = [layer.name for layer in vgg.layers if isinstance(layer, keras.layers.Conv2D)]
    if unknown := sorted(layers - {*convolutions}):
        raise ValueError(
            f"`content_layer` and `style_layers` must be among {', '.join(convolutions)}. "
            f"Received: {', '.join(unknown)}"
        )
    inputs = keras.Input((size, size, 3))
    features, outputs = inputs, {}
    for layer in vgg.layers[1:]:
        if isinstance(layer, keras.layers.MaxPooling2D):
            if features.shape[1] < 2:
                raise ValueError(
                    f"The layers {sorted(layers)} need a larger `size`. Received: {size}"
                )
            layer = keras.layers.AveragePooling2D(layer.pool_size, layer.strides)
        features = layer(features)
        if layer.name in layers:
            outputs[layer.name] = features
        if len(outputs) == len(layers):
            break
    network = keras.Model(inputs, outputs)
    network.trainable = False
    return network


def _vgg16(weights: str | None) -> keras.Model:
    """Returns VGG16 without its dense layers."""
    path = weights
    if weights not in (None, "imagenet"):
        path = str(Path(weights).expanduser())
        if not Path(path).is_file():
            raise FileNotFoundError(f"No weights of VGG16 at {weights!r}")
    try:
        vgg = keras.applications.VGG16(include_top=False, weights=path)
    except Exception as error:
        # No network, a damaged file: in one line.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        error_type = FileNotFoundError if weights == "imagenet" else ValueError
        raise error_type(f"The weights {weights!r} of VGG16 could not be read: {reason}") from error
    if weights is None:
        # The variance of He et al., and always the same kernels.
        generator = np.random.default_rng(0)
        for layer in vgg.layers:
            if isinstance(layer, keras.layers.Conv2D):
                fan_in = np.prod(layer.kernel.shape[:3])
                kernel = generator.normal(scale=np.sqrt(2 / fan_in), size=layer.kernel.shape)
                layer.set_weights([kernel, np.zeros(layer.bias.shape)])
    return vgg
