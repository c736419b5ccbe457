"""Layers of the tasks' models.

`Convolution`, `AveragePooling` and `BatchNormalization` have the variables of Keras' layers and
compute the same functions in training. On a CPU, XLA's convolutions are many times slower than
matrix products, and TensorFlow's batch statistics have no second derivatives; these layers are fast
and have them.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from l2l_keras.tasks.base import Tensor


class Convolution(keras.layers.Conv2D):
    """A padded `size` × `size` convolution, computed as a matrix product of patches and kernel."""

    def __init__(self, filters: int, size: int, strides: int = 1, use_bias: bool = True) -> None:
        super().__init__(filters, size, strides, padding="same", use_bias=use_bias)

    def call(self, inputs: Tensor) -> Tensor:
        """Convolves images `[batch, height, width, channels]`."""
        size, stride = self.kernel_size[0], self.strides[0]
        pads = [(0, 0)]
        for length in inputs.shape[1:3]:
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads.append((total // 2, total - total // 2))
        inputs = ops.pad(inputs, [*pads, (0, 0)])
        height, width = (length - size + 1 for length in inputs.shape[1:3])
        patches = [
            inputs[:, y : y + height : stride, x : x + width : stride]
            for y in range(size)
            for x in range(size)
        ]
        kernel = ops.reshape(ops.convert_to_tensor(self.kernel), (-1, self.filters))
        outputs = ops.matmul(ops.concatenate(patches, axis=-1), kernel)
        return outputs + self.bias if self.use_bias else outputs


class AveragePooling(keras.layers.Layer):
    """Averages 2×2 squares of pixels."""

    def call(self, inputs: Tensor) -> Tensor:
        """Pools images `[batch, height, width, channels]` of even height and width."""
        height, width, channels = inputs.shape[1:]
        squares = ops.reshape(inputs, (-1, height // 2, 2, width // 2, 2, channels))
        return ops.mean(squares, axis=(2, 4))


class BatchNormalization(keras.layers.Layer):
    """Normalizes by the statistics of the minibatch, as Keras' layer does in training."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scale γ and the offset β."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, inputs: Tensor) -> Tensor:
        """Normalizes over all axes except the last."""
        axes = tuple(range(len(inputs.shape) - 1))
        centered = inputs - ops.mean(inputs, axis=axes, keepdims=True)
        variance = ops.mean(ops.square(centered), axis=axes, keepdims=True)
        return self.gamma * centered * ops.rsqrt(variance + 1e-3) + self.beta


class ActivationMixture(keras.layers.Layer):
    """Applies one of Keras' activation functions, of index `chosen` among their names.

    The choice is a non-trainable weight: models with different activations share one compiled
    program.
    """

    def __init__(self, activations: Sequence[str], chosen: int) -> None:
        super().__init__()
        self._functions = [keras.activations.get(name) for name in activations]
        shape = (len(activations),)
        self._one_hot = self.add_weight(shape, "zeros", trainable=False, name="one_hot")
        self._one_hot.assign([float(k == chosen) for k in range(len(activations))])

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the chosen function of the inputs."""
        values = [function(inputs) for function in self._functions]
        return ops.tensordot(self._one_hot, ops.stack(values), axes=1)
