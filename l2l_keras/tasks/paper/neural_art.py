"""Pictures in the style of a painting: the paper's last experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from l2l_keras import arguments
from l2l_keras.tasks.base import Nest, Split, Task, Tensor, split_seed
from l2l_keras.tasks.paper import pictures
from l2l_keras.tasks.paper.vgg import feature_network

_NOISE = 0.05  # Standard deviation of the initial noise, RGB in [0, 1].
# RGB of θ = 0, and the RGB that θ = 1 adds.
_GRAY, _UNIT = 0.5, 4.0


class Terms(NamedTuple):
    """The three losses of a picture before they are weighted, scalars; see `NeuralArt`."""

    content: Tensor
    style: Tensor
    variation: Tensor


class NeuralArt(Task):
    """Paints one picture in the style of another: the optimizee is the painting's pixels.

    The loss is a weighted sum of three, each a mean, so that it is about one at the start for any
    size. With F the features of a layer of VGG16 and G = FᵀF / positions their Gram matrix,

    - content: ‖F − F_content‖² / ‖F_content‖² of one layer,
    - style: ‖G − G_style‖² / ‖G_style‖², averaged over layers,
    - total variation: the mean squared difference of neighboring pixels, RGB in [0, 1].

    θ is (RGB − 0.5) / 4 of all pixels: this unit gives gradients of a common scale, for which the
    best learning rates are about 0.01 for Adam and 1 for Nesterov's momentum. θ_0 is noise, fresh
    for every seed, as in Gatys et al. VGG's max pooling is replaced by average pooling, as they
    advise: the gradient of a maximum reaches one pixel in four.

    Exact meta-gradients (`second_derivatives`) of this task are huge if a rule's steps are close to
    the largest stable ones. Start from smaller steps, and clip with a `global_clipnorm` of 0.05.

    Args:
        content_dir: Folder of pictures with the subfolders `train`, `validation` (or `val`) and
            `test`: an optimizee's content is a random crop of a picture of its split. Defaults to
            scikit-learn's photograph of a temple, whose left, middle and right third are the three
            splits: enough to try the task, too little to learn from.
        style: The style picture's file. Defaults to scikit-learn's photograph of a flower.
        weights: `"imagenet"` (default) for those that `keras.applications` downloads, the path of a
            file that `keras.applications.VGG16(include_top=False, weights=path)` reads, or None
            for random ones, always the same.
        preprocessing: The preprocessing that the weights were trained with: `"caffe"` (default,
            those of `keras.applications`) or `"torch"` (torchvision's); see
            `keras.applications.imagenet_utils.preprocess_input`.
        size: Height and width of the picture in pixels. Defaults to the paper's 64.
        content_layer: VGG16's layer of the content loss. Defaults to `"block3_conv1"`.
        style_layers: Its layers of the style loss. Defaults to the first one of each of the first
            three blocks.
        content_weight: Weight of the content loss. Defaults to 0.1.
        style_weight: Weight of the style loss. Defaults to 1.
        variation_weight: Weight of the total variation. Defaults to 3.

    Attributes:
        side: Height and width of the picture in pixels.
        style_image: The center of the style picture in that size, uint8 `[side, side, 3]`.
        loss_weights: Weights of the three losses.

    Raises:
        FileNotFoundError: If a folder or file is missing, or the weights cannot be downloaded.
        ValueError: If another argument is not as described.

    Example:
        >>> task = l2l_keras.tasks.NeuralArt(weights=None, size=32)
        >>> parameters, state = task.sample("train", seed=0)
        >>> parameters.shape
        TensorShape([3072])
        >>> task.to_image(parameters).shape
        (32, 32, 3)

    Source: Andrychowicz et al. (2016), section 3.4; Gatys, Ecker, Bethge: "A neural algorithm of
    artistic style" (2015).
    """

    name = "neural_art"

    def __init__(
        self,
        content_dir: str | None = None,
        style: str | None = None,
        weights: str | None = "imagenet",
        preprocessing: str = "caffe",
        size: int = 64,
        content_layer: str = "block3_conv1",
        style_layers: Sequence[str] = ("block1_conv1", "block2_conv1", "block3_conv1"),
        content_weight: float = 0.1,
        style_weight: float = 1.0,
        variation_weight: float = 3.0,
    ) -> None:
        arguments.check(isinstance(size, int) and size > 0, "size", "a positive integer", size)
        arguments.one_of("preprocessing", preprocessing, ("caffe", "torch"))
        valid = isinstance(style_layers, (list, tuple)) and len(style_layers) > 0
        arguments.check(valid, "style_layers", "a list of layers", style_layers)
        self.loss_weights = Terms(content_weight, style_weight, variation_weight)
        if min(self.loss_weights) < 0 or max(self.loss_weights) <= 0:
            raise ValueError(
                "The weights of the losses must not be negative, nor all zero. "
                f"Received: {self.loss_weights}"
            )
        self.side = size
        self._preprocessing = preprocessing
        self._content_layer = content_layer
        self._style_layers = tuple(style_layers)
        self._pictures = pictures.in_folder(content_dir) if content_dir else pictures.embedded()
        painting = pictures.read_image(style) if style else pictures.photograph("flower.jpg")
        self._network = feature_network(weights, size, {content_layer, *style_layers})
        self.style_image = pictures.center_crop(painting, size)
        _, self._grams = self._targets(self.style_image)

    @property
    def size(self) -> int:
        """Number of pixels times three colors."""
        return self.side * self.side * 3

    def sample(self, split: Split, seed: int) -> tuple[Tensor, Nest]:
        """Draws noise and a content picture; see `Task.sample`.

        The state is the features of the content picture, and the style's Gram matrices.
        """
        return self.optimizee(self.content(split, seed), split_seed(split, seed))

    def optimizee(self, picture: np.ndarray, seed: int) -> tuple[Tensor, Nest]:
        """Returns the optimizee, as `sample`, with a given content picture.

        Args:
            picture: uint8 `[height, width, 3]`, whose largest central square is the content.
            seed: Seed of the noise, a non-negative integer.
        """
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            raise ValueError(
                "`picture` must be uint8 of shape [height, width, 3]. "
                f"Received: {picture.dtype} of shape {picture.shape}"
            )
        noise = np.random.default_rng([seed, 1]).normal(size=self.size)
        features, _ = self._targets(pictures.center_crop(picture, self.side))
        return tf.constant(_NOISE / _UNIT * noise, "float32"), (features, self._grams)

    def content(self, split: Split, seed: int) -> np.ndarray:
        """Returns the content picture, uint8 `[side, side, 3]`, of an optimizee; see `sample`."""
        generator = np.random.default_rng([split_seed(split, seed), 0])
        choices = self._pictures[split]
        picture = choices[int(generator.integers(len(choices)))]()
        return pictures.random_crop(picture, self.side, generator)

    def loss(self, parameters: Tensor, state: Nest, batch: Nest) -> tuple[Tensor, Nest]:
        """Computes the weighted sum of the three losses; see `Task.loss`."""
        terms = self.terms(parameters, state)
        weighted = [weight * term for weight, term in zip(self.loss_weights, terms, strict=True)]
        return tf.reshape(tf.add_n(weighted), (1,)), state

    def terms(self, parameters: Tensor, state: Nest) -> Terms:
        """Computes the three losses before they are weighted; arguments as for `loss`."""
        pixels = _GRAY + _UNIT * tf.reshape(parameters, (1, self.side, self.side, 3))
        features, grams = self._features(pixels)
        styles = [_relative_distance(*pair) for pair in zip(grams, state[1], strict=True)]
        return Terms(
            content=_relative_distance(features, state[0]),
            style=tf.add_n(styles) / len(styles),
            variation=_total_variation(pixels),
        )

    def to_image(self, parameters: Tensor) -> np.ndarray:
        """Returns the picture, uint8 `[side, side, 3]`, of parameters; colors are clipped."""
        pixels = 255.0 * (_GRAY + _UNIT * np.asarray(parameters))
        return np.clip(np.round(pixels), 0, 255).astype("uint8").reshape(self.side, self.side, 3)

    def _targets(self, image: np.ndarray) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the content features and the Gram matrices of a picture."""
        return self._features(tf.constant(image[np.newaxis] / 255.0, "float32"))

    def _features(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns content features and Gram matrices of `[1, side, side, 3]`, RGB in [0, 1]."""
        inputs = keras.applications.imagenet_utils.preprocess_input(
            255.0 * pixels, data_format="channels_last", mode=self._preprocessing
        )
        outputs = self._network(inputs)
        grams = tuple(_gram(outputs[layer]) for layer in self._style_layers)
        return outputs[self._content_layer], grams


def _gram(features: Tensor) -> Tensor:
    """Returns the Gram matrix `[channels, channels]` of features `[1, height, width, channels]`."""
    _, height, width, channels = features.shape
    rows = tf.reshape(features, (height * width, channels))
    return tf.matmul(rows, rows, transpose_a=True) / (height * width)


def _relative_distance(values: Tensor, targets: Tensor) -> Tensor:
    """Returns ‖values − targets‖² / ‖targets‖²."""
    return tf.reduce_sum(tf.square(values - targets)) / tf.reduce_sum(tf.square(targets))


def _total_variation(pixels: Tensor) -> Tensor:
    """Returns the mean squared vertical difference, plus the mean squared horizontal one."""
    vertical = pixels[:, 1:] - pixels[:, :-1]
    horizontal = pixels[:, :, 1:] - pixels[:, :, :-1]
    return tf.reduce_mean(tf.square(vertical)) + tf.reduce_mean(tf.square(horizontal))
