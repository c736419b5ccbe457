"""The data of the testbed: photographs, tables, text and series that need no download.

Functions return `(x, y)` for every split, as `KerasTask` takes them. `"train"` repeats
`"validation"`, the examples on which learning rates are tuned: no rule is meta-trained here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

from l2l_keras.tasks.paper import pictures

Array = np.ndarray
Examples = tuple[Array, Array]
Data = dict[str, Examples]

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
"""Scikit-learn's, 640×427 pixels each."""


def splits(validation: Examples, test: Examples) -> Data:
    """Returns examples by the names of the splits."""
    return {"train": validation, "validation": validation, "test": test}


def halves(x: Array, y: Array) -> Data:
    """Splits the rows of a table at random: x and y, `[rows, ...]`."""
    parts = np.array_split(np.random.default_rng(0).permutation(len(x)), 2)
    return splits(*((x[part], y[part]) for part in parts))


def standardized(values: Array) -> Array:
    """Returns the columns of a table with mean 0 and standard deviation 1, as float32."""
    scale = values.std(axis=0)
    return ((values - values.mean(axis=0)) / np.where(scale > 0, scale, 1.0)).astype("float32")


def table(name: str) -> Examples:
    """Reads one of scikit-learn's tables: "breast_cancer", "diabetes" or "wine"."""
    from sklearn import datasets  # Late: scikit-learn takes a second.

    return getattr(datasets, f"load_{name}")(return_X_y=True)


@functools.cache
def photograph(name: str) -> Array:
    """Reads one of `PHOTOGRAPHS`: float32 `[height, width, 3]` from 0 to 1."""
    return (pictures.photograph(name) / 255.0).astype("float32")


def patches(size: int, count: int) -> Data:
    """Cuts patches out of both photographs at random: float32 `[count, size, size, 3]`.

    Labels, int32 `[count]`, are 0 and 1 for the left and right side of the first photograph, 2 and
    3 for those of the second. Tuning uses the upper halves of the photographs, tests the lower.
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

    return splits(cut(lower=False), cut(lower=True))


def pixels() -> Data:
    """Returns coordinates from -1 to 1, and colours, of the pixels of every fourth row and column.

    Tuning uses one photograph, tests the other.
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


def characters(length: int, vocabulary: int) -> Data:
    """Returns pieces of text, and the next character at every position: int32 `[pieces, length]`.

    Characters beyond the most frequent `vocabulary` count as one more. Tuning uses the first half
    of the text.
    """

    def shifted(codes: Array) -> Examples:
        count = (len(codes) - 1) // length
        end = count * length
        return codes[:end].reshape(count, length), codes[1 : end + 1].reshape(count, length)

    return _encode(list(text()), vocabulary, shifted)


def words(context: int, vocabulary: int) -> Data:
    """Returns the words on both sides of every word, int32 `[words, 2 * context]`, and the word.

    Words beyond the most frequent `vocabulary` count as one more. Tuning uses the first half of the
    text.
    """

    def around(codes: Array) -> Examples:
        windows = np.lib.stride_tricks.sliding_window_view(codes, 2 * context + 1)
        return np.delete(windows, context, axis=1), windows[:, context].copy()

    return _encode(re.findall(r"\w+", text().lower()), vocabulary, around)


def _encode(symbols: list[str], vocabulary: int, examples: Callable[[Array], Examples]) -> Data:
    """Numbers symbols by frequency, and makes examples of each half of them."""
    unique, inverse, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    code = np.full(len(unique), vocabulary, "int32")
    code[np.argsort(-counts, kind="stable")[:vocabulary]] = np.arange(vocabulary)
    return splits(*map(examples, np.array_split(code[inverse], 2)))


def spirals(turns: float = 1.5, noise: float = 0.12, count: int = 1000) -> Data:
    """Returns noisy points of two spirals around the origin, and which one each is of."""
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
    """Returns windows of a chaotic series, float32 `[count, length, 1]`, and a later value of it.

    Source: the equation of Mackey and Glass, "Oscillation and chaos in physiological control
    systems" (1977), with a delay of 17.
    """
    delay, burn_in = 17, 500
    total = burn_in + 2 * (count + length + ahead)
    series = np.full(total, 1.2)
    for t in range(delay, total - 1):
        late = series[t - delay]
        series[t + 1] = 0.9 * series[t] + 0.2 * late / (1.0 + late**10)
    series = standardized(series[burn_in:, np.newaxis])[:, 0]

    def examples(part: Array) -> Examples:
        windows = np.lib.stride_tricks.sliding_window_view(part, length + ahead)[:count]
        return windows[:, :length, np.newaxis].copy(), windows[:, -1:].copy()

    return splits(*map(examples, np.array_split(series, 2)))
