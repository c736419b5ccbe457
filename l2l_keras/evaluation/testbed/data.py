"""The data of the testbed: photographs, tables, text and series that need no download.

Each is returned as `KerasTask` takes it, `(x, y)` for every split. Nothing is meta-trained here, so
that what stands under `"train"` is what stands under `"validation"`: the examples on which learning
rates are tuned. Those of `"test"` are others.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Examples = tuple[Array, Array]
Data = dict[str, Examples]

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
"""Those that come with scikit-learn, 640×427 pixels each."""


def splits(validation: Examples, test: Examples) -> Data:
    """Returns examples by the names of the splits.

    Args:
        validation: Examples for tuning.
        test: Other examples.
    """
    return {"train": validation, "validation": validation, "test": test}


def halves(x: Array, y: Array) -> Data:
    """Divides a table's rows at random.

    Args:
        x: `[rows, ...]`.
        y: `[rows, ...]`.
    """
    parts = np.array_split(np.random.default_rng(0).permutation(len(x)), 2)
    return splits(*((x[part], y[part]) for part in parts))


def standardised(values: Array) -> Array:
    """Returns the columns of a table with mean 0 and standard deviation 1, as float32.

    Args:
        values: `[rows, columns]`.
    """
    scale = values.std(axis=0)
    return ((values - values.mean(axis=0)) / np.where(scale > 0, scale, 1.0)).astype("float32")


@functools.cache
def photograph(name: str) -> Array:
    """Reads one of scikit-learn's photographs.

    Args:
        name: One of `PHOTOGRAPHS`.

    Returns:
        float32 `[height, width, 3]` from 0 to 1.
    """
    # Imported here: scikit-learn takes a second.
    from sklearn.datasets import load_sample_image

    return (load_sample_image(name) / 255.0).astype("float32")


def patches(size: int, count: int) -> dict[str, Examples]:
    """Cuts patches out of both photographs, at random places.

    Args:
        size: Side of a patch in pixels.
        count: Number of patches of a split.

    Returns:
        For each split, float32 `[count, size, size, 3]`, and int32 `[count]`: 0 to 3 for the left
        and right side of the first photograph, and those of the second. Patches of tuning are from
        the upper halves of the photographs, those of tests from the lower.
    """
    rng = np.random.default_rng(0)

    def cut(lower: bool) -> Examples:
        found, sides = [], []
        for _ in range(count):
            number, right = rng.integers(len(PHOTOGRAPHS)), rng.integers(2)
            whole = photograph(PHOTOGRAPHS[number])
            half = np.array_split(np.array_split(whole, 2)[int(lower)], 2, axis=1)[right]
            top, left = (rng.integers(side - size + 1) for side in half.shape[:2])
            found.append(half[top : top + size, left : left + size])
            sides.append(2 * number + right)
        return np.stack(found), np.array(sides, "int32")

    return {"validation": cut(lower=False), "test": cut(lower=True)}


def placed_patches(size: int, count: int) -> Data:
    """Returns patches of photographs; the label says which, and which side of it.

    Args:
        size: Side of a patch in pixels.
        count: Number of patches of a split.
    """
    return splits(*patches(size, count).values())


def patches_themselves(size: int, count: int) -> Data:
    """Returns patches of photographs as vectors, for models that give back what they are given.

    Args:
        size: Side of a patch in pixels.
        count: Number of patches of a split.
    """
    flat = [images.reshape(len(images), -1) for images, _ in patches(size, count).values()]
    return splits(*((vectors, vectors) for vectors in flat))


def pixels() -> Data:
    """Returns the pixels of photographs: coordinates from -1 to 1, and colours.

    Tuning is done on one photograph and tests on the other, at a quarter of their size.
    """

    def examples(name: str) -> Examples:
        colours = photograph(name)[::4, ::4]
        axes = [np.linspace(-1.0, 1.0, side, dtype="float32") for side in colours.shape[:2]]
        coordinates = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return coordinates.reshape(-1, 2), colours.reshape(-1, 3)

    return splits(*map(examples, PHOTOGRAPHS))


def text() -> str:
    """Returns half a million characters of English and code: Python's own help pages."""
    from pydoc_data import topics

    return "\n".join(topics.topics[name] for name in sorted(topics.topics))


def characters(length: int, kinds: int) -> Data:
    """Returns pieces of text; what is to be told is the next character, at every place.

    Args:
        length: Characters of a piece.
        kinds: How many of the most frequent characters are told apart; others count as one more.

    Returns:
        int32 `[pieces, length]`, those of tuning from the first half of the text.
    """
    return _pieces(list(text()), kinds, lambda codes: _next(codes, length))


def words(context: int, kinds: int) -> Data:
    """Returns words of a text with those around them, which they are to be told from.

    Args:
        context: Number of words on either side.
        kinds: How many of the most frequent words are told apart; others count as one more.

    Returns:
        int32 `[words, 2 * context]` and `[words]`, those of tuning from the first half of the text.
    """

    def around(codes: Array) -> Examples:
        windows = np.lib.stride_tricks.sliding_window_view(codes, 2 * context + 1)
        return np.delete(windows, context, axis=1), windows[:, context].copy()

    return _pieces(re.findall(r"\w+", text().lower()), kinds, around)


def _pieces(symbols: list[str], kinds: int, examples: Callable[[Array], Examples]) -> Data:
    """Numbers symbols by their frequency, and makes examples of each half of them."""
    unique, inverse, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    number = np.full(len(unique), kinds, "int32")
    number[np.argsort(-counts, kind="stable")[:kinds]] = np.arange(kinds)
    return splits(*map(examples, np.array_split(number[inverse], 2)))


def _next(codes: Array, length: int) -> Examples:
    """Cuts codes into pieces, and gives for every place the code that follows it."""
    count = (len(codes) - 1) // length
    ends = count * length
    return codes[:ends].reshape(count, length), codes[1 : ends + 1].reshape(count, length)


def spirals(turns: float = 1.5, noise: float = 0.12, count: int = 1000) -> Data:
    """Returns points of two spirals in the plane, which are to be told apart.

    Args:
        turns: How often each winds around the origin.
        noise: Standard deviation of what is added to each coordinate.
        count: Points of a split.
    """
    rng = np.random.default_rng(0)

    def examples() -> Examples:
        labels = rng.integers(2, size=count)
        radius = np.sqrt(rng.uniform(0.01, 1.0, size=count))
        angle = 2.0 * np.pi * turns * radius + np.pi * labels
        points = radius * np.stack([np.cos(angle), np.sin(angle)])
        points = points.T + noise * rng.normal(size=(count, 2))
        return points.astype("float32"), labels[:, np.newaxis].astype("float32")

    return splits(examples(), examples())


def chaotic_series(length: int, ahead: int = 6, count: int = 4000) -> Data:
    """Returns windows of a chaotic series, from which its later value is to be told.

    Args:
        length: Values in a window.
        ahead: How many values later.
        count: Windows of a split.

    Returns:
        float32 `[count, length, 1]` and `[count, 1]`, with mean 0 and standard deviation 1.

    Source: the equation of Mackey and Glass, "Oscillation and chaos in physiological control
    systems" (1977), with a delay of 17.
    """
    delay, burn_in = 17, 500
    total = burn_in + 2 * (count + length + ahead)
    series = np.full(total, 1.2)
    for t in range(delay, total - 1):
        late = series[t - delay]
        series[t + 1] = 0.9 * series[t] + 0.2 * late / (1.0 + late**10)
    series = standardised(series[burn_in:, np.newaxis])[:, 0]

    def examples(part: Array) -> Examples:
        windows = np.lib.stride_tricks.sliding_window_view(part, length + ahead)[:count]
        return windows[:, :length, np.newaxis].copy(), windows[:, -1:].copy()

    return splits(*map(examples, np.array_split(series, 2)))
