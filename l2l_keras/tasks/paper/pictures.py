"""Reading and cropping the pictures of neural art, uint8 `[height, width, 3]`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from l2l_keras.tasks.base import SPLITS, Split

# Functions that return the pictures of each split.
Pictures = dict[Split, list[Callable[[], np.ndarray]]]

_FOLDERS: dict[Split, tuple[str, ...]]
_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png"}
_SMALLEST_CROP = 0.75  # Of the shorter side.


def read_image(path: str | Path) -> np.ndarray:
    """Reads a JPEG, PNG or BMP picture."""
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise FileNotFoundError(f"No picture at {str(path)!r}: {error.strerror}") from error
    try:
        return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"Expected a JPEG, PNG or BMP picture. Received: {str(path)!r}") from error


def in_folder(content_dir: str) -> Pictures:
    """Returns the pictures of the subfolders `train`, `validation` (or `val`) and `test`."""
    pictures: Pictures = {}
    for split, names in _FOLDERS.items():
        folders = [Path(content_dir).expanduser() / name for name in names]
        found = [[f for f in path.glob("*") if f.suffix.lower() in _SUFFIXES] for path in folders]
        paths = next(filter(None, found), None)
        if paths is None:
            raise FileNotFoundError(
                f"Expected pictures (JPEG, PNG, BMP) in {str(folders[0])!r}: "
                "`content_dir` must have the subfolders train, validation (or val) and test"
            )
        pictures[split] = [functools.partial(read_image, path) for path in sorted(paths)]
    return pictures


def embedded() -> Pictures:
    """Returns the left, middle and right third of scikit-learn's photograph of a temple."""
    thirds = np.array_split(photograph("china.jpg"), len(SPLITS), axis=1)
    return {s: [functools.partial(np.copy, third)] for s, third in zip(SPLITS, thirds, strict=True)}


def photograph(name: str) -> np.ndarray:
    """Returns one of scikit-learn's photographs: `"china.jpg"` or `"flower.jpg"`."""
    # Imported here: scikit-learn takes a second.
    from sklearn.datasets import load_sample_image

    return load_sample_image(name)


def random_crop(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Returns a random square of a picture, flipped or not, resized to `[size, size, 3]`."""
    height, width, _ = image.shape
    side = round(min(height, width) * generator.uniform(_SMALLEST_CROP, 1.0))
    top, left = generator.integers(height - side + 1), generator.integers(width - side + 1)
    square = image[top : top + side, left : left + side]
    return _resize(square[:, ::-1] if generator.integers(2) else square, size)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the largest central square of a picture, resized to `[size, size, 3]`."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resize(image[top : top + side, left : left + side], size)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    resized = tf.image.resize(image, (size, size), antialias=True)
    return np.clip(np.round(resized), 0, 255).astype("uint8")
