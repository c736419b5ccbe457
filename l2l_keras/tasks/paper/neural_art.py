"""Pictures in the style of a painting: the paper's last experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.tasks.base import SPLITS, Nest, Split, Task, Tensor, split_seed

_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png"}
_PREPROCESSING = ("caffe", "torch")
_LEAST_CROP = 0.75
_NOISE = 0.05
"""Standard deviation of the noise to start from, RGB in [0, 1]."""
_GREY, _UNIT = 0.5, 4.0
"""RGB of θ = 0, and what θ = 1 adds to it."""


class Terms(NamedTuple):
    """The three losses of a picture before they are weighted, scalars.

    Attributes:
        content: How far its features are from those of the content picture.
        style: How far its Gram matrices are from those of the style picture.
        variation: How much neighbouring pixels differ.
    """

    content: Tensor
    style: Tensor
    variation: Tensor


class NeuralArt(Task):
    """Paints one picture in the style of another: the optimizee is the painting's pixels.

    The loss is a weighted sum of three, each a mean, so that it is about one at the start for any
    size. With F the features of a layer of VGG16 and G = FᵀF / positions their Gram matrix,

    - content: ‖F − F_content‖² / ‖F_content‖² of one layer,
    - style: ‖G − G_style‖² / ‖G_style‖², averaged over layers,
    - total variation: the mean square of differences between neighbouring pixels, RGB in [0, 1].

    θ are the pixels as (RGB − 0.5) / 4. A mean over thousands of pixels depends little on each of
    them; in this unit, gradients are of the size that optimizers are used to: the best learning
    rates are about 0.01 for Adam and 1 for Nesterov's momentum. θ_0 is noise, fresh for every seed,
    as in Gatys et al.; at the content picture itself, the first loss would be at its least already.
    Pooling takes averages instead of VGG's maxima, as Gatys et al. advise: the gradient of a
    maximum goes to one pixel in four.

    Only as much of VGG16 is built as the layers need. A step at 64×64 pixels takes about 20 ms on
    one core.

    Whole meta-gradients (`second_derivatives`) of this task are huge where a rule's steps are about
    as large as they may be. Start from smaller ones, and clip: a `global_clipnorm` of 0.05.

    Args:
        content_dir: Folder of pictures with the sub-folders `train`, `validation` (or `val`) and
            `test`: an optimizee's content is a random crop of one of its split. Defaults to
            scikit-learn's photograph of a temple, whose left, middle and right third are the three
            splits: enough to try things out, too little to learn from.
        style: The style picture's file. Defaults to scikit-learn's photograph of a flower.
        weights: `"imagenet"` (default) for those that `keras.applications` downloads, the path of a
            file that `keras.applications.VGG16(include_top=False, weights=path)` reads, or None
            for random ones, always the same.
        preprocessing: What the weights were trained on: `"caffe"` (default, those of
            `keras.applications`) or `"torch"` (torchvision's); see
            `keras.applications.imagenet_utils.preprocess_input`.
        size: Side of the picture in pixels. Defaults to the paper's 64.
        content_layer: VGG16's layer of the content loss. Defaults to `"block3_conv1"`.
        style_layers: Its layers of the style loss. Defaults to the first one of each of the first
            three blocks.
        content_weight: Weight of the content loss. Defaults to 0.1.
        style_weight: Weight of the style loss. Defaults to 1.
        variation_weight: Weight of the total variation. Defaults to 3.

    Attributes:
        side: Side of the picture in pixels.
        style_image: The middle of the style picture in that size, uint8 `[side, side, 3]`.
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
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"`size` must be a positive integer. Received: {size!r}")
        if preprocessing not in _PREPROCESSING:
            raise ValueError(
                f"`preprocessing` must be one of {_PREPROCESSING}. Received: {preprocessing!r}"
            )
        if not isinstance(style_layers, (list, tuple)) or not style_layers:
            raise ValueError(
                f"`style_layers` must be a sequence of names of layers. Received: {style_layers!r}"
            )
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
        self._pictures: Mapping[Split, Sequence[Path | np.ndarray]]
        self._pictures = _files(content_dir) if content_dir else _thirds_of_a_photograph()
        style_picture = read_image(style) if style else _photograph("flower.jpg")
        self._network = _network(weights, size, {content_layer, *style_layers})
        self.style_image = _middle(style_picture, size)
        _, self._grams = self._targets(self.style_image)

    @property
    def size(self) -> int:
        """Number of pixels times three colours."""
        return self.side * self.side * 3

    def sample(self, split: Split, seed: int) -> tuple[Tensor, Nest]:
        """Draws a content picture and noise; see `Task.sample`.

        Args:
            split: As in `Task.sample`.
            seed: As in `Task.sample`.

        Returns:
            `(parameters, state)`: noise, float32 `[size]`, and `(features, Gram matrices)`: the
            features of the content picture, and the Gram matrices of the style picture by layer.
        """
        return self.optimizee(self.content(split, seed), split_seed(split, seed))

    def optimizee(self, picture: np.ndarray, seed: int) -> tuple[Tensor, Nest]:
        """Returns the optimizee whose content is a picture of your own.

        Args:
            picture: uint8 `[height, width, 3]`: its largest square, in the middle, is the content.
            seed: Seed of the noise, a non-negative integer.

        Returns:
            As `sample`.

        Raises:
            ValueError: If `picture` is not as described.

        Example:
            >>> task = l2l_keras.tasks.NeuralArt(weights=None, size=32)
            >>> picture = np.zeros((48, 64, 3), "uint8")
            >>> parameters, state = task.optimizee(picture, seed=0)
            >>> parameters.shape
            TensorShape([3072])
        """
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            raise ValueError(
                "`picture` must be uint8 of shape [height, width, 3]. "
                f"Received: {picture.dtype} of shape {picture.shape}"
            )
        noise = np.random.default_rng([seed, 1]).normal(size=self.size)
        features, _ = self._targets(_middle(picture, self.side))
        return tf.constant(_NOISE / _UNIT * noise, "float32"), (features, self._grams)

    def content(self, split: Split, seed: int) -> np.ndarray:
        """Returns the content picture of an optimizee.

        Args:
            split: As in `Task.sample`.
            seed: As in `Task.sample`.

        Returns:
            uint8 `[side, side, 3]`.

        Example:
            >>> task = l2l_keras.tasks.NeuralArt(weights=None, size=32)
            >>> task.content("test", seed=0).shape
            (32, 32, 3)
        """
        generator = np.random.default_rng([split_seed(split, seed), 0])
        pictures = self._pictures[split]
        picture = pictures[int(generator.integers(len(pictures)))]
        if isinstance(picture, Path):
            picture = read_image(picture)
        return _random_crop(picture, self.side, generator)

    def batch(self, split: Split, seed: Tensor) -> Nest:
        """Returns `()`: all data are in the state."""
        del split, seed
        return ()

    def loss(self, parameters: Tensor, state: Nest, batch: Nest) -> tuple[Tensor, Nest]:
        """Computes the weighted sum of the three losses; see `Task.loss`."""
        del batch
        terms = self.terms(parameters, state)
        weighted = [weight * term for weight, term in zip(self.loss_weights, terms, strict=True)]
        return tf.reshape(tf.add_n(weighted), (1,)), state

    def terms(self, parameters: Tensor, state: Nest) -> Terms:
        """Computes the three losses.

        Args:
            parameters: float32 `[size]`.
            state: As returned by `sample`.

        Returns:
            The losses before they are weighted.

        Example:
            >>> task = l2l_keras.tasks.NeuralArt(weights=None, size=32)
            >>> parameters, state = task.sample("train", seed=0)
            >>> content, style, variation = task.terms(parameters, state)
        """
        features, grams = state
        pixels = _GREY + _UNIT * tf.reshape(parameters, (1, self.side, self.side, 3))
        outputs = self._features(pixels)
        styles = [
            _relative_distance(_gram(outputs[layer]), gram)
            for layer, gram in zip(self._style_layers, grams, strict=True)
        ]
        return Terms(
            content=_relative_distance(outputs[self._content_layer], features),
            style=tf.add_n(styles) / len(styles),
            variation=_total_variation(pixels),
        )

    def to_parameters(self, image: np.ndarray) -> Tensor:
        """Returns the parameters of a picture.

        Args:
            image: uint8 `[side, side, 3]`.

        Returns:
            float32 `[size]`.

        Example:
            >>> task = l2l_keras.tasks.NeuralArt(weights=None, size=32)
            >>> parameters = task.to_parameters(task.content("train", seed=0))
        """
        pixels = np.asarray(image, "float32") / 255.0
        return tf.constant((pixels.ravel() - _GREY) / _UNIT, "float32")

    def to_image(self, parameters: Tensor) -> np.ndarray:
        """Returns the picture of parameters; what is too dark or too bright to be shown is cut off.

        Args:
            parameters: float32 `[size]`.

        Returns:
            uint8 `[side, side, 3]`.

        Example:
            >>> task = l2l_keras.tasks.NeuralArt(weights=None, size=32)
            >>> int(task.to_image(tf.zeros(task.size)).max())  # Grey.
            128
        """
        pixels = 255.0 * (_GREY + _UNIT * np.asarray(parameters))
        return np.clip(np.round(pixels), 0, 255).astype("uint8").reshape(self.side, self.side, 3)

    def _targets(self, image: np.ndarray) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns a picture's features and Gram matrices."""
        outputs = self._features(tf.constant(image[np.newaxis] / 255.0, "float32"))
        return outputs[self._content_layer], tuple(
            _gram(outputs[layer]) for layer in self._style_layers
        )

    def _features(self, pixels: Tensor) -> dict[str, Tensor]:
        """Returns the network's features of pixels `[1, side, side, 3]`, RGB in [0, 1]."""
        inputs = keras.applications.imagenet_utils.preprocess_input(
            255.0 * pixels, data_format="channels_last", mode=self._preprocessing
        )
        return self._network(inputs)


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture.

    Args:
        path: A file in JPEG, PNG or BMP format.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a picture.
    """
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise FileNotFoundError(f"No picture at {str(path)!r}: {error.strerror}") from error
    try:
        return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"Expected a JPEG, PNG or BMP picture. Received: {str(path)!r}") from error


def _files(content_dir: str) -> dict[Split, list[Path]]:
    """Returns the files of every split in alphabetical order; they are read when they are drawn."""
    folder = Path(content_dir).expanduser()
    return {split: _files_of(folder, split) for split in SPLITS}


def _files_of(folder: Path, split: Split) -> list[Path]:
    for name in _FOLDERS[split]:
        paths = sorted(p for p in folder.glob(f"{name}/*") if p.suffix.lower() in _SUFFIXES)
        if paths:
            return paths
    raise FileNotFoundError(
        f"Expected pictures (JPEG, PNG, BMP) in {str(folder / _FOLDERS[split][0])!r}: "
        "`content_dir` must have the sub-folders train, validation (or val) and test"
    )


def _thirds_of_a_photograph() -> dict[Split, list[np.ndarray]]:
    """Returns parts of scikit-learn's photograph of a temple that share no pixel."""
    thirds = np.array_split(_photograph("china.jpg"), len(SPLITS), axis=1)
    return {split: [third] for split, third in zip(SPLITS, thirds, strict=True)}


def _photograph(name: str) -> np.ndarray:
    """Returns one of scikit-learn's photographs, uint8 `[427, 640, 3]`."""
    # Imported here: scikit-learn takes a second.
    from sklearn.datasets import load_sample_image

    return load_sample_image(name)


def _random_crop(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Cuts a square out of a picture, mirrors it or not, and resizes it."""
    height, width, _ = image.shape
    side = round(min(height, width) * generator.uniform(_LEAST_CROP, 1.0))
    top, left = generator.integers(height - side + 1), generator.integers(width - side + 1)
    square = image[top : top + side, left : left + side]
    return _resize(square[:, ::-1] if generator.integers(2) else square, size)


def _middle(image: np.ndarray, size: int) -> np.ndarray:
    """Cuts the largest square out of the middle of a picture, and resizes it."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resize(image[top : top + side, left : left + side], size)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    resized = tf.image.resize(image, (size, size), antialias=True)
    return np.clip(np.round(resized), 0, 255).astype("uint8")


def _network(weights: str | None, size: int, layers: set[str]) -> keras.Model:
    """Returns VGG16 up to the last of these layers, with average pooling and their outputs."""
    vgg = _vgg16(weights)
    convolutions = [layer.name for layer in vgg.layers if isinstance(layer, keras.layers.Conv2D)]
    unknown = sorted(layers - {*convolutions})
    if unknown:
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
    """Returns VGG16's convolutional base."""
    if weights not in (None, "imagenet") and not Path(weights).expanduser().is_file():
        raise FileNotFoundError(f"No weights of VGG16 at {weights!r}")
    path = weights if weights in (None, "imagenet") else str(Path(weights).expanduser())
    try:
        vgg = keras.applications.VGG16(include_top=False, weights=path)
    except Exception as error:
        # Whatever goes wrong (no network, a damaged file), users need one line.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = FileNotFoundError if weights == "imagenet" else ValueError
        raise kind(f"The weights {weights!r} of VGG16 could not be read: {reason}") from error
    if weights is None:
        _draw_weights(vgg)
    return vgg


def _draw_weights(network: keras.Model) -> None:
    """Draws weights of He et al.'s size, the same ones in every process."""
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            fan_in = np.prod(layer.kernel.shape[:3])
            kernel = generator.normal(scale=np.sqrt(2 / fan_in), size=layer.kernel.shape)
            layer.set_weights([kernel, np.zeros(layer.bias.shape)])


def _gram(features: Tensor) -> Tensor:
    """Returns the Gram matrix `[channels, channels]` of features `[1, height, width, channels]`."""
    _, height, width, channels = features.shape
    rows = tf.reshape(features, (height * width, channels))
    return tf.matmul(rows, rows, transpose_a=True) / (height * width)


def _relative_distance(values: Tensor, targets: Tensor) -> Tensor:
    """Returns ‖values − targets‖² / ‖targets‖²."""
    return tf.reduce_sum(tf.square(values - targets)) / tf.reduce_sum(tf.square(targets))


def _total_variation(pixels: Tensor) -> Tensor:
    """Returns the mean square of vertical differences of pixels, plus that of horizontal ones."""
    vertical = pixels[:, 1:] - pixels[:, :-1]
    horizontal = pixels[:, :, 1:] - pixels[:, :, :-1]
    return tf.reduce_mean(tf.square(vertical)) + tf.reduce_mean(tf.square(horizontal))
