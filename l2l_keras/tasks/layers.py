"""Layers that XLA compiles to quick programs, whose second derivatives are right.

On a CPU, XLA's convolutions are many times slower than products of matrices, and the statistics of
Keras' batch normalisation have no gradient of a gradient on TensorFlow. These layers have the
variables, and compute the functions, of Keras' own in training.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any


class Convolution(keras.layers.Layer):
    """A convolution of images, as a product of patches with a kernel.

    Args:
        filters: Number of filters.
        size: Side of the kernel.
        strides: Step between patches. Defaults to 1.
        padding: `"same"` (default) or `"valid"`.
        use_bias: Whether to add a bias. Defaults to True.
        kernel_initializer: Initializer of the kernel. Defaults to `"glorot_uniform"`.

    Example:
        >>> Convolution(4, size=3)(np.ones((2, 8, 8, 1))).shape
        TensorShape([2, 8, 8, 4])
    """

    def __init__(
        self,
        filters: int,
        size: int,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
    ) -> None:
        super().__init__()
        self._filters, self._size, self._strides = filters, size, strides
        self._padding, self._use_bias = padding, use_bias
        self._initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the kernel `[size, size, channels, filters]` and the bias."""
        self.kernel = self.add_weight(
            shape=(self._size, self._size, input_shape[-1], self._filters),
            initializer=self._initializer,
            name="kernel",
        )
        if self._use_bias:
            self.bias = self.add_weight(shape=(self._filters,), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        """Convolves images `[batch, height, width, channels]`."""
        size, strides = self._size, self._strides
        if self._padding == "same":
            pads = [(0, 0)]
            for length in inputs.shape[1:3]:
                total = max((-(-length // strides) - 1) * strides + size - length, 0)
                pads.append((total // 2, total - total // 2))
            inputs = ops.pad(inputs, [*pads, (0, 0)])
        height, width = (length - size + 1 for length in inputs.shape[1:3])
        patches = ops.concatenate(
            [
                inputs[:, y : y + height : strides, x : x + width : strides]
                for y in range(size)
                for x in range(size)
            ],
            axis=-1,
        )
        kernel = ops.reshape(ops.convert_to_tensor(self.kernel), (-1, self._filters))
        outputs = ops.matmul(patches, kernel)
        return outputs + self.bias if self._use_bias else outputs


class AveragePooling(keras.layers.Layer):
    """Averages squares of two by two pixels.

    Example:
        >>> AveragePooling()(np.ones((2, 8, 8, 3))).shape
        TensorShape([2, 4, 4, 3])
    """

    def call(self, inputs: Tensor) -> Tensor:
        """Averages images `[batch, height, width, channels]` of an even height and width."""
        height, width, channels = inputs.shape[1:]
        squares = ops.reshape(inputs, (-1, height // 2, 2, width // 2, 2, channels))
        return ops.mean(squares, axis=(2, 4))


class BatchNormalization(keras.layers.Layer):
    """Normalises by the statistics of the minibatch, as Keras' layer does in training.

    Args:
        epsilon: Added to variances. Defaults to 1e-3.

    Example:
        >>> BatchNormalization()(np.ones((2, 3))).shape
        TensorShape([2, 3])
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        self._epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the scale and the shift."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, inputs: Tensor) -> Tensor:
        """Normalises all axes but the last."""
        axes = tuple(range(len(inputs.shape) - 1))
        centred = inputs - ops.mean(inputs, axis=axes, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
        return self.gamma * centred * ops.rsqrt(variance + self._epsilon) + self.beta
