"""The mixture of tasks on which general presets are meta-trained.

Small models of many architectures, on digits, MNIST and generated data. Neither they nor their data
are among the problems of `l2l_keras.evaluation.testbed`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras.initializers import HeNormal
from keras.layers import GRU, LSTM, LayerNormalization
from keras.regularizers import L2

from l2l_keras.tasks.general.data import (
    Data,
    DigitImages,
    clusters,
    correlated,
    digit_sums,
    label_noise,
    markov_chain,
    pendulum,
    random_field,
    ratings,
    regions,
    sines,
    skewed_clusters,
    table,
    teacher,
    text,
    textures,
    word_bags,
)
from l2l_keras.tasks.general.models import (
    badly_scaled,
    bag_of_words,
    classifier,
    convnet,
    logistic,
    matrix_factorization,
    mlp,
    regressor,
    series_rnn,
    token_rnn,
    transformer,
)
from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.layers import BatchNormalization
from l2l_keras.tasks.mixture import Mixture

MakeTask = Callable[[DigitImages], KerasTask]


def _classes(
    units: Sequence[int],
    data: tuple[Any, ...],
    batch_size: int,
    noise: float = 0.0,
    generate: Callable[..., Data] = clusters,
    **options: Any,
) -> MakeTask:
    """Makes perceptrons that classify `generate(*data)`, of whose labels a part is noise."""
    return lambda _: classifier(
        mlp(*units, **options), label_noise(generate(*data), noise), batch_size
    )


_skewed = functools.partial(_classes, generate=skewed_clusters)
_unbalanced = functools.partial(_classes, unbalanced=True)

TRAINING_TASKS: dict[str, MakeTask] = {
    "shallow": lambda images: classifier(mlp(20), images.digits, 128),
    "middling": lambda images: classifier(mlp(64, 64), images.digits, 32),
    "deep": lambda images: classifier(mlp(*(32,) * 6, init=HeNormal), images.digits, 64),
    "badly_scaled": lambda images: classifier(mlp(40, 40, init=badly_scaled), images.digits, 32),
    "residual": lambda images: classifier(mlp(*(32,) * 6, residual=True), images.digits, 16),
    "layer_norm": lambda images: classifier(
        mlp(48, 48, norm=LayerNormalization), images.digits, 16
    ),
    "batch_norm": lambda images: classifier(
        mlp(48, 48, 48, norm=BatchNormalization), images.digits, 64
    ),
    "wide": lambda images: classifier(mlp(128), images.small_mnist, 32),
    "wider": lambda images: classifier(mlp(256, 256), images.small_mnist, 16),
    "dropout": lambda images: classifier(mlp(48, 48, dropout=0.3), images.small_mnist, 64),
    "linear": lambda images: classifier(mlp(), images.small_mnist, 256),
    "large_inputs": lambda images: classifier(mlp(32), images.mnist, 64),
    "autoencoder": lambda images: logistic(mlp(48, 16, 48), images.pixels, 32),
    "wide_autoencoder": lambda images: logistic(mlp(256, 32, 256), images.pixels, 16),
    "deep_autoencoder": lambda images: regressor(
        mlp(48, 24, 8, 24, 48, output="sigmoid"), images.pixels, 16
    ),
    "teacher": lambda _: regressor(mlp(40, 24), teacher(9, 1), 16),
    "field": lambda _: regressor(mlp(48, 48), random_field(), 128),
    "table": lambda _: logistic(mlp(32), table(), 32),
    "small_table": lambda _: logistic(mlp(48, 48, dropout=0.2), table(16, 750), 32),
    "small_regression": lambda _: regressor(
        mlp(32, 32, regularizer=L2(1e-3)), teacher(12, 1, 600, noise=0.5), 8
    ),
    "classes": _classes((32, 32), (5, 10, 1800), 64, init=badly_scaled),
    "two_classes": _classes((40,), (2, 18), 16, init=badly_scaled),
    "linear_classes": _classes((), (3, 13, 750), 8),
    # Few rows and dropout: losses fall to hundredths, and large steps are penalized by the few
    # difficult rows.
    "dropped_classes": _classes((64, 64), (2, 28, 900, 3.0), 32, dropout=0.3, init=badly_scaled),
    "dropped_shallow_classes": _classes((48,), (2, 22, 600, 4.0), 16, dropout=0.2),
    "distant_classes": _classes((40, 24), (3, 12, 1200, 7.0), 64, dropout=0.4, init=badly_scaled),
    "deeply_dropped_classes": _classes(
        (40, 40, 40), (2, 34, 750, 6.0), 8, noise=0.04, dropout=0.15, init=HeNormal
    ),
    # Layers whose scales differ by orders of magnitude. With label noise, such tasks are
    # learned within a few steps, after which large steps increase the loss again.
    "apart_classes": _unbalanced((48, 48), (2, 20, 900, 3.0), 32, dropout=0.2),
    "apart_digits": lambda images: classifier(mlp(48, 32, unbalanced=True), images.digits, 32),
    "apart_regression": lambda _: regressor(
        mlp(40, 40, dropout=0.1, unbalanced=True), teacher(14, 1, 900, noise=0.3), 16
    ),
    "apart_table": lambda _: logistic(
        mlp(64, 48, dropout=0.2, unbalanced=True), label_noise(table(30, 750), 0.02), 32
    ),
    "apart_distant_classes": _unbalanced((56,), (3, 32, 690, 5.0), 16, noise=0.03, dropout=0.25),
    "apart_two_classes": _unbalanced((64, 64), (2, 24, 570, 4.0), 32, noise=0.02, dropout=0.3),
    "apart_shallow_classes": _unbalanced((40, 32), (2, 17, 840, 6.0), 8, noise=0.04),
    "apart_deep_classes": _unbalanced((48, 32, 24), (4, 38, 660, 5.0), 64, dropout=0.1),
    # Outliers, whose gradients are far larger than those of other rows.
    "skewed_classes": _skewed((48, 48), (2, 27, 780, 5.0), 32, dropout=0.2),
    "skewed_shallow_classes": _skewed((64,), (3, 23), 16, init=badly_scaled),
    "apart_skewed_classes": _skewed((56, 56), (2, 31, 630, 5.0), 32, dropout=0.1, unbalanced=True),
    "apart_skewed_shallow_classes": _skewed(
        (40,), (2, 19, 870, 5.0), 16, noise=0.02, unbalanced=True
    ),
    "mislabelled_classes": _classes((40, 24), (3, 15, 2400, 3.0), 16, noise=0.1, init=badly_scaled),
    "mislabelled_linear": _classes((), (2, 25, 1500), 8, noise=0.2),
    "mislabelled_digits": lambda images: classifier(
        mlp(160, 64), label_noise(images.small_mnist, 0.4), 64
    ),
    "textures": lambda _: classifier(mlp(56, 40), label_noise(textures(8, 22), 0.2), 32),
    "regions": lambda _: classifier(mlp(24, 24), regions(4), 16),
    "correlated": lambda _: regressor(mlp(), correlated(), 32),
    "convolutions": lambda images: classifier(convnet((6, 12)), images.digits, 32),
    "normalised_convolutions": lambda images: classifier(
        convnet((6, 12), BatchNormalization), images.digits, 16
    ),
    "strided_convolutions": lambda images: classifier(
        convnet((8, 12), strides=2), images.small_mnist, 16
    ),
    "transformer": lambda _: classifier(transformer(32, heads=4), markov_chain(24, 12), 8),
    "wide_transformer": lambda _: classifier(transformer(96, heads=4), markov_chain(24, 12), 4),
    "narrow_transformer": lambda _: classifier(
        transformer(16, heads=2, blocks=2), markov_chain(24, 12), 32
    ),
    "deep_transformer": lambda _: classifier(
        transformer(48, heads=4, blocks=4), markov_chain(24, 12), 8
    ),
    "lstm": lambda _: classifier(token_rnn(LSTM, 24, embedding=8), markov_chain(24, 12), 32),
    "gru": lambda _: regressor(series_rnn(GRU, 16), sines(10), 32),
    # Without noise, so that losses fall by orders of magnitude.
    "responses": lambda _: regressor(series_rnn(GRU, 20), pendulum(12), 32),
    "responses_of_lstm": lambda _: regressor(series_rnn(LSTM, 16), pendulum(8), 16),
    "exact_teacher": lambda _: regressor(mlp(48, 32), teacher(12, 1, 30000, noise=0.0), 32),
    # Difficult tasks, whose losses still fall after thousands of steps.
    "text_transformer": lambda _: classifier(transformer(48, heads=4, blocks=2), text(25, 16), 16),
    "text_gru": lambda _: classifier(token_rnn(GRU, 48, embedding=16), text(25, 16), 32),
    "sums": lambda images: classifier(mlp(128, 64, dropout=0.1), images.sums, 32),
    "sums_of_convolutions": lambda images: classifier(
        convnet((8, 12, 16), BatchNormalization, strides=2), images.sums, 32
    ),
    "deep_teacher": lambda _: regressor(mlp(96, 64), teacher(24, 2, 60000, depth=3), 32),
    "bag": lambda _: classifier(bag_of_words(16), word_bags(200, 4), 64, classes=200),
    "rare_words": lambda _: classifier(bag_of_words(40), word_bags(1500, 6), 64, classes=1500),
    "frequent_words": lambda _: classifier(
        bag_of_words(24), word_bags(3000, 4, kept=200), 128, classes=201
    ),
    "many_words": lambda _: classifier(
        bag_of_words(28), word_bags(6000, 4, kept=799), 128, classes=800
    ),
    "factors": lambda _: regressor(matrix_factorization(150, rank=8), ratings(100, 50), 128),
}

VALIDATION_TASKS: dict[str, MakeTask] = {
    # Dropout prevents memorization, which would reduce ratios of losses to rounding errors.
    "two_layers": lambda images: classifier(mlp(40, 40, dropout=0.2), images.mnist, 128),
    "nine_layers": lambda images: classifier(
        mlp(*(24,) * 9, init=HeNormal), images.small_mnist, 32
    ),
    "wide_layer": lambda images: classifier(mlp(400, 40, dropout=0.2), images.small_mnist, 64),
    "squeezing": lambda images: regressor(mlp(96, 12, 96, output="sigmoid"), images.pixels, 128),
    "regression": lambda _: regressor(mlp(24, 24, 24), teacher(16, 3, noise=0.3), 8, "mae"),
    "few_rows": lambda _: logistic(mlp(64, 32, dropout=0.3, init=badly_scaled), table(24, 750), 16),
    "kinds": _classes((24,), (3, 14, 600), 16, init=badly_scaled, regularizer=L2(1e-3)),
    "dropped_kinds": _classes((56, 40), (2, 26, 840, 3.0), 32, noise=0.02, dropout=0.35),
    "dropped_few_kinds": _classes(
        (48, 48), (2, 18, 660, 5.0), 16, noise=0.04, dropout=0.25, init=badly_scaled
    ),
    "apart_kinds": _unbalanced((40, 40), (3, 24, 900, 4.0), 32, noise=0.02, dropout=0.25),
    "apart_rows": lambda _: logistic(
        mlp(56, 40, dropout=0.25, unbalanced=True), label_noise(table(26, 750), 0.03), 16
    ),
    "apart_two_kinds": _unbalanced((64, 32), (2, 29, 600, 5.0), 32, noise=0.02, dropout=0.3),
    "apart_shallow_kinds": _unbalanced((48,), (3, 21, 720, 4.0), 16, noise=0.03, dropout=0.15),
    "skewed_kinds": _skewed((40, 32), (3, 25, 750, 5.0), 16, dropout=0.1),
    "apart_skewed_kinds": _skewed(
        (48, 32), (2, 28, 690, 6.0), 32, noise=0.02, dropout=0.2, unbalanced=True
    ),
    "mislabelled_kinds": _classes((32, 16), (2, 20, 1800, 3.0), 16, noise=0.1, init=badly_scaled),
    "mislabelled_images": lambda images: classifier(
        mlp(200, 100), label_noise(images.mnist, 0.5), 64
    ),
    "directions": lambda _: classifier(mlp(80), label_noise(textures(6, 28), 0.3), 64),
    # More inputs than any training task has.
    "fine_directions": lambda _: classifier(mlp(80), label_noise(textures(6, 40), 0.3), 64),
    "many_measurements": _classes((64,), (3, 2000, 600), 16, dropout=0.2),
    "many_inputs": lambda _: regressor(mlp(64, 32), teacher(3000, 3, 3000), 32),
    "linear_kinds": _classes((), (4, 16), 32),
    "images": lambda images: classifier(
        convnet((12, 12, 24), BatchNormalization), images.small_mnist, 32
    ),
    "attention": lambda _: classifier(transformer(24, heads=3), markov_chain(40, 10), 32),
    "memory": lambda _: classifier(token_rnn(GRU, 32, embedding=12), markov_chain(40, 10), 16),
    "pendulum": lambda _: regressor(series_rnn(LSTM, 24), pendulum(14), 64),
    "exact_regression": lambda _: regressor(
        mlp(40, 40), teacher(10, 2, 30000, noise=0.0, depth=2), 16
    ),
    "letters": lambda _: classifier(
        token_rnn(LSTM, 40, embedding=12), text(31, 20, words=1000), 16
    ),
    "attention_to_letters": lambda _: classifier(
        transformer(36, heads=3, blocks=2), text(31, 20, words=1000), 32
    ),
    "differences": lambda images: classifier(
        convnet((12, 16, 24), BatchNormalization, strides=2),
        digit_sums(images.small_mnist, sign=-1),
        64,
    ),
    "words": lambda _: classifier(bag_of_words(12), word_bags(300, 3), 32, classes=300),
    "common_words": lambda _: classifier(
        bag_of_words(24), word_bags(8000, 4, kept=999), 128, classes=1000
    ),
}


def general(
    data_dir: str | None = None,
    download: bool = True,
    kinds: Sequence[str] | None = None,
    validation: Sequence[str] | None = None,
) -> Mixture:
    """Returns the mixture of tasks that the general presets are meta-trained on.

    Args:
        data_dir: Folder of TensorFlow Datasets, for MNIST. Defaults to that library's own.
        download: Whether to download MNIST if it is missing. Defaults to True.
        kinds: Names of the training tasks. Defaults to all.
        validation: Names of the validation tasks. Defaults to all.

    Returns:
        The mixture. Its validation tasks have other models, and data that is not trained on.

    Raises:
        ValueError: If a name is unknown.
        FileNotFoundError: If a chosen task needs MNIST, which is neither in `data_dir` nor
            downloaded.
    """
    images = DigitImages(data_dir, download)
    return Mixture(
        _make("kinds", kinds, TRAINING_TASKS, images),
        _make("validation", validation, VALIDATION_TASKS, images),
        name="general",
    )


def _make(
    argument: str, names: Sequence[str] | None, makers: Mapping[str, MakeTask], images: DigitImages
) -> dict[str, KerasTask]:
    """Makes the tasks of these names, or all."""
    names = list(makers) if names is None else names
    if unknown := sorted(set(names) - set(makers)):
        raise ValueError(f"`{argument}` must be among {list(makers)}. Received: {unknown}")
    return {name: makers[name](images) for name in names}
