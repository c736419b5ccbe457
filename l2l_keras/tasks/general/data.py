"""Data of the general mixture: images of digits and generated data.

Data is `{split: (x, y)}`, examples on the first axis: x is float32, or int32 for tokens; y is int32
`[examples]` for classes, and float32 `[examples, outputs]` for regressions. Every function draws
from a fixed seed; `count` examples are divided equally among the splits.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.paper.images import embedded_digits, load_images

Array = np.ndarray
Data = dict[Any, tuple[Any, Any]]

# MNIST's test images are not used.
_MNIST = {"train": "train[:30000]", "validation": "train[30000:45000]", "test": "train[45000:]"}


class DigitImages:
    """scikit-learn's digits and MNIST, each read when it is first used; pixels are from 0 to 1.

    MNIST's images are tensors, which tasks share instead of copying.
    """

    def __init__(self, data_dir: str | None, download: bool) -> None:
        self._data_dir = data_dir
        self._download = download

    @functools.cached_property
    def digits(self) -> Data:
        """scikit-learn's digits, `[examples, 8, 8]`, and their labels."""
        return {split: (x[..., 0], y) for split, (x, y) in embedded_digits().items()}

    @functools.cached_property
    def mnist(self) -> Data:
        """MNIST, `[examples, 28, 28]`, and its labels."""
        return _scaled(self._bytes)

    @functools.cached_property
    def small_mnist(self) -> Data:
        """MNIST with squares of 2×2 pixels averaged, `[examples, 14, 14]`, and its labels."""
        return _scaled({split: (halved(x), y) for split, (x, y) in self._bytes.items()})

    @functools.cached_property
    def pixels(self) -> Data:
        """The pixels of `small_mnist`, `[examples, 196]`, which are their own targets."""
        flat = {s: tf.reshape(x, (len(x), -1)) for s, (x, _) in self.small_mnist.items()}
        return {split: (x, x) for split, x in flat.items()}

    @functools.cached_property
    def sums(self) -> Data:
        """Pairs of images `[examples, 14, 28]`, and the last digit of the sum of their labels."""
        return {s: (tf.constant(x), y) for s, (x, y) in digit_sums(self.small_mnist).items()}

    @functools.cached_property
    def _bytes(self) -> Data:
        images = load_images("mnist", _MNIST, self._data_dir, self._download)
        return {split: (x[..., 0], y) for split, (x, y) in images.items()}


def halved(images: Array) -> Array:
    """Averages 2×2 squares of pixels of images `[examples, height, width]`, and rounds."""
    count, height, width = images.shape
    squares = images.reshape(count, height // 2, 2, width // 2, 2)
    return squares.mean(axis=(2, 4)).round()


def digit_sums(images: Data, sign: int = 1) -> Data:
    """Returns pairs of digit images side by side, labeled with the last digit of their sum.

    A `sign` of -1 gives the last digit of their difference instead.
    """
    random = np.random.default_rng(25)
    pairs = {}
    for split, (x, y) in images.items():
        left, labels = np.asarray(x), np.asarray(y)
        other = random.permutation(len(labels))
        sums = (labels + sign * labels[other]) % 10
        pairs[split] = np.concatenate([left, left[other]], axis=-1), sums.astype("int32")
    return pairs


def clusters(classes: int, features: int, count: int = 900, distance: float = 4.0) -> Data:
    """Returns Gaussian clusters, one a class, with standardized, correlated `features`.

    `distance` is the expected distance of two centers, in standard deviations within a cluster: at
    4, clusters overlap a little.
    """
    random = np.random.default_rng(20)
    labels = random.integers(classes, size=count)
    centers = distance / np.sqrt(2.0 * features) * random.normal(size=(classes, features))
    common = random.normal(size=(count, 4)) @ random.normal(size=(4, features)) / 2.0
    x = centers[labels] + 0.8 * common + 0.6 * random.normal(size=(count, features))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return _split(x.astype("float32"), labels.astype("int32"))


def label_noise(data: Data, part: float) -> Data:
    """Draws a part of the labels of int classes again, uniformly at random."""
    random = np.random.default_rng(21)
    noisy = {}
    for split, (x, y) in data.items():
        labels = np.asarray(y)
        drawn = random.integers(labels.max() + 1, size=labels.shape)
        chosen = random.uniform(size=labels.shape) < part
        noisy[split] = x, np.where(chosen, drawn, labels).astype(labels.dtype)
    return noisy


def skewed_clusters(*arguments: Any) -> Data:
    """Returns `clusters` with features skewed by x → ±exp(±s x), s up to 0.8, and standardized.

    Tails on one side are as long as those of lengths, areas and incomes.
    """
    random = np.random.default_rng(22)
    data = clusters(*arguments)
    features = data["train"][0].shape[1]
    skews = 0.8 * random.uniform(0.2, 1.0, features) * random.choice([-1.0, 1.0, 1.0], features)
    x = np.sign(skews) * np.exp(skews * np.concatenate([x for x, _ in data.values()]))
    parts = np.split(((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32"), len(data))
    return {split: (part, data[split][1]) for split, part in zip(data, parts, strict=True)}


def table(features: int = 20, count: int = 6000) -> Data:
    """Returns a table with columns of different scales and distributions, and two noisy classes.

    Classes are float32 `[examples, 1]`, 0 or 1.
    """
    random = np.random.default_rng(13)
    latent = random.normal(size=(count, 6))
    x = latent @ random.normal(size=(6, features)) + 0.5 * random.normal(size=(count, features))
    score = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + x[:, 3] + 0.7 * random.normal(size=count)
    # A quarter of the columns each: rescaled, skewed, rounded and unchanged.
    x[:, 0::4] *= 10.0 ** random.uniform(-1.0, 1.0, size=x[:, 0::4].shape[1])
    x[:, 1::4] = np.exp(0.7 * x[:, 1::4])
    x[:, 2::4] = np.round(x[:, 2::4])
    return _split(x.astype("float32"), (score > 0.0).astype("float32")[:, None])


def regions(classes: int, count: int = 12000) -> Data:
    """Returns points in the square [-1, 1]², labeled with the largest of several random fields."""
    fields = random_field(classes, count=count)
    return {split: (x, y.argmax(axis=1).astype("int32")) for split, (x, y) in fields.items()}


def textures(classes: int, size: int, count: int = 4500) -> Data:
    """Returns color images of waves on a color gradient, labeled with the waves' direction.

    Images are `[examples, size, size, 3]` from 0 to 1. As in photographs, neighboring pixels are
    similar and few are black.
    """
    random = np.random.default_rng(22)
    labels = random.integers(classes, size=count)
    angle = np.pi * (labels + random.normal(scale=0.2, size=count)) / classes
    frequency = random.uniform(4.0, 12.0, size=count)
    positions = np.linspace(-1.0, 1.0, size, dtype="float32")
    columns, rows = np.meshgrid(positions, positions)

    def plane(x: Array, y: Array) -> Array:
        return x[:, None, None] * columns + y[:, None, None] * rows

    waves = plane(frequency * np.cos(angle), frequency * np.sin(angle))
    waves = np.sin(waves + random.uniform(0.0, 2.0 * np.pi, size=(count, 1, 1)))
    gradient = plane(*random.normal(size=(2, count)))
    colors = random.normal(size=(3, count, 1, 1, 3))
    x = 0.5 + 0.1 * colors[0] + 0.1 * gradient[..., None] * colors[1]
    x = x + 0.1 * waves[..., None] * (1.0 + 0.3 * colors[2])
    x = x + random.normal(scale=0.05, size=x.shape)
    return _split(np.clip(x, 0.0, 1.0).astype("float32"), labels.astype("int32"))


def teacher(
    inputs: int, outputs: int, count: int = 6000, noise: float = 0.1, depth: int = 1
) -> Data:
    """Returns normal inputs and the outputs of a random network of `depth` hidden layers.

    Outputs have variance one; then `noise`, a standard deviation, is added.
    """
    random = np.random.default_rng(11)
    x = hidden = random.normal(size=(count, inputs))
    for _ in range(depth):
        kernel = random.normal(size=(hidden.shape[1], 24))
        hidden = np.tanh(hidden @ kernel * 1.5 / np.sqrt(len(kernel)))
    y = hidden @ random.normal(size=(24, outputs))
    y = y / y.std() + noise * random.normal(size=y.shape)
    return _split(x.astype("float32"), y.astype("float32"))


def random_field(outputs: int = 2, count: int = 12000) -> Data:
    """Returns points in the square [-1, 1]² and smooth random fields there, sums of plane waves."""
    random = np.random.default_rng(12)
    x = random.uniform(-1.0, 1.0, size=(count, 2))
    frequencies = random.normal(size=(2, 12)) * 4.0
    phases = random.uniform(0.0, 2.0 * np.pi, size=12)
    y = np.sin(x @ frequencies + phases) @ random.normal(size=(12, outputs))
    return _split(x.astype("float32"), (0.3 * y / y.std()).astype("float32"))


def correlated(features: int = 30, condition: float = 100.0, count: int = 6000) -> Data:
    """Returns a linear regression whose features have a covariance of a given condition number."""
    random = np.random.default_rng(14)
    rotation, _ = np.linalg.qr(random.normal(size=(features, features)))
    scales = condition ** (-0.5 * np.linspace(0.0, 1.0, features))
    x = (random.normal(size=(count, features)) * scales) @ rotation
    y = x @ rotation.T @ (random.normal(size=features) / scales) / np.sqrt(features)
    y = y + 0.05 * random.normal(size=count)
    return _split(x.astype("float32"), y.astype("float32")[:, None])


def sines(length: int, count: int = 6000) -> Data:
    """Returns noisy sums of two sines `[examples, length, 1]`, and their next value."""
    random = np.random.default_rng(16)
    time = np.arange(length + 1)
    frequency = random.uniform(0.1, 1.5, size=(2, count, 1))
    phase = random.uniform(0.0, 2.0 * np.pi, size=(2, count, 1))
    series = np.sin(frequency * time + phase).sum(axis=0)
    series = (series + 0.05 * random.normal(size=series.shape)).astype("float32")
    return _split(series[:, :-1, None], series[:, -1:])


def pendulum(length: int, count: int = 12000) -> Data:
    """Returns forces on damped pendulums `[examples, length, 1]`, and the angles at the end.

    There is no noise. Angles have variance one.
    """
    random = np.random.default_rng(26)
    forces = random.normal(size=(count, length))
    angle = speed = np.zeros(count)
    for force in forces.T:
        for _ in range(4):
            speed = speed + 0.15 * (2.0 * force - np.sin(angle) - 0.3 * speed)
            angle = angle + 0.15 * speed
    x, y = forces.astype("float32"), (angle / angle.std()).astype("float32")
    return _split(x[..., None], y[:, None])


def markov_chain(vocabulary: int, length: int, count: int = 6000) -> Data:
    """Returns sequences of a Markov chain that sometimes switches to another, and next tokens."""
    random = np.random.default_rng(15)
    following = random.dirichlet(np.full(vocabulary, 0.1), size=2 * vocabulary).cumsum(axis=-1)
    chain = random.integers(2, size=count)
    token = random.integers(vocabulary, size=count)
    sequence = [token]
    for _ in range(length):
        chain = np.where(random.uniform(size=count) < 0.05, 1 - chain, chain)
        token = _draw(random, following, chain * vocabulary + token)
        sequence.append(token)
    sequences = np.stack(sequence, axis=1).astype("int32")
    return _split(sequences[:, :-1], sequences[:, 1:])


def text(letters: int, length: int, count: int = 72000, words: int = 600) -> Data:
    """Returns windows of a text of made-up words, and the next letters; letter 0 is the space.

    Word frequencies follow Zipf's law, so that rare words are left to learn for a long time.
    """
    random = np.random.default_rng(24)
    longest = 7
    # Words end in a space; -1 is padding.
    size = random.integers(2, longest + 1, size=(words, 1))
    position = np.arange(longest + 1)
    spelling = random.integers(1, letters, size=(words, longest + 1))
    spelling = np.where(position < size, spelling, np.where(position == size, 0, -1))
    # The part of speech, one of eight, of a word determines which parts are likely to follow.
    part = random.integers(8, size=words)
    follows = random.dirichlet(np.full(8, 0.3), size=8)
    frequency = follows[:, part] / np.arange(1, words + 1)
    frequency = (frequency / frequency.sum(axis=1, keepdims=True)).cumsum(axis=1)
    word = random.integers(words, size=count)
    spelled = []
    for _ in range(length // 3 + 2):
        spelled.append(spelling[word])
        word = _draw(random, frequency, part[word])
    windows = np.concatenate(spelled, axis=1)
    # Moves all padding to the end.
    order = np.argsort(windows < 0, axis=1, kind="stable")
    windows = np.take_along_axis(windows, order, axis=1)[:, : length + 1].astype("int32")
    return _split(windows[:, :-1], windows[:, 1:])


def word_bags(vocabulary: int, size: int, count: int = 15000, kept: int | None = None) -> Data:
    """Returns bags of `size` words of one topic, and another word of the same topic.

    Word frequencies follow Zipf's law. Only the `kept` most frequent words stay (default: all); all
    others become one more word.
    """
    random = np.random.default_rng(17)
    frequency = 1.0 / np.arange(1, vocabulary + 1)
    topics = random.dirichlet(0.05 * frequency * vocabulary, size=12).cumsum(axis=-1)
    topic = random.integers(12, size=count)
    words = _draw(random, topics, np.repeat(topic[:, None], size + 1, axis=1))
    last = vocabulary - 1 if kept is None else kept
    words = np.minimum(words, last).astype("int32")
    return _split(words[:, :-1], words[:, -1])


def ratings(users: int, items: int, count: int = 15000) -> Data:
    """Returns users' ratings of items: entries of a noisy low-rank matrix.

    Examples are pairs: a user, and the number of users plus an item.
    """
    random = np.random.default_rng(18)
    tastes = random.normal(size=(users + items, 4))
    user, item = random.integers(users, size=count), users + random.integers(items, size=count)
    rating = (tastes[user] * tastes[item]).sum(axis=1) / 2.0 + 0.3 * random.normal(size=count)
    x = np.stack([user, item], axis=1).astype("int32")
    return _split(x, rating.astype("float32")[:, None])


def _scaled(images: Data) -> Data:
    """Maps pixels from 0 to 255 to float32 from 0 to 1."""
    return {s: (tf.constant(x.astype("float32") / 255.0), y) for s, (x, y) in images.items()}


def _split(x: Array, y: Array) -> Data:
    """Gives each split a third of the examples, which are in random order already."""
    parts = np.split(np.arange(len(x) // 3 * 3), 3)
    return {split: (x[part], y[part]) for split, part in zip(SPLITS, parts, strict=True)}


def _draw(random: np.random.Generator, cumulative: Array, rows: Array) -> Array:
    """Draws from the distributions `cumulative[rows]`, which are cumulative probabilities."""
    uniform = random.uniform(size=rows.shape)
    drawn = np.empty_like(rows)
    for row, distribution in enumerate(cumulative):
        here = rows == row
        drawn[here] = np.searchsorted(distribution, uniform[here])
    return np.minimum(drawn, cumulative.shape[-1] - 1)
