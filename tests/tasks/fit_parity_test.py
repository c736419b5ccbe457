"""A `KerasTask` has the loss and gradient that `keras.Model.fit` has, whatever the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses

from l2l_keras.tasks import KerasTask
from l2l_keras.tasks.base import SPLITS

COUNT, FEATURES, CLASSES, LENGTH = 40, 4, 3, 5
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(COUNT, FEATURES)).astype("float32")
REAL = RANDOM.normal(size=COUNT).astype("float32")
POSITIVE = np.abs(REAL) + 0.1
BINARY = RANDOM.integers(0, 2, COUNT)
LABELS = RANDOM.integers(0, CLASSES, COUNT)
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]
WEIGHTS = RANDOM.uniform(0.1, 2.0, COUNT).astype("float32")
TOKENS = RANDOM.integers(0, 6, (COUNT, LENGTH))
TAGS = RANDOM.integers(0, CLASSES, (COUNT, LENGTH))


def compiled(model, loss=None, **arguments):
    model.compile(keras.optimizers.SGD(1.0), loss=loss, **arguments)
    return model


def chain(*own_layers, shape=(FEATURES,), **arguments):
    """A compiled model of layers, one after the other."""
    return lambda: compiled(keras.Sequential([keras.Input(shape), *make(own_layers)]), **arguments)


def make(own_layers):
    """Fresh layers from layers that serve as a pattern."""
    return [type(layer).from_config(layer.get_config()) for layer in own_layers]


def dense(loss, units=1, activation=None, **arguments):
    return chain(layers.Dense(units, activation), loss=loss, **arguments)


def branches(loss, outputs, **arguments):
    """A model of two outputs, in a list or a dictionary."""

    def model_fn():
        x = keras.Input((FEATURES,))
        hidden = layers.Dense(5, activation="tanh")(x)
        parts = (
            layers.Dense(1, name="a")(hidden),
            layers.Dense(CLASSES, "softmax", name="b")(hidden),
        )
        return compiled(keras.Model(x, outputs(*parts)), loss, **arguments)

    return model_fn


def as_list(a, b):
    return [a, b]


def as_dictionary(a, b):
    return {"a": a, "b": b}


def two_inputs():
    left, right = keras.Input((FEATURES,), name="left"), keras.Input((1,), name="right")
    outputs = layers.Dense(1)(layers.Concatenate()([left, right]))
    return compiled(keras.Model({"left": left, "right": right}, outputs), "mse")


def tagger(loss="sparse_categorical_crossentropy", mask_zero=True):
    """A sequence tagger whose mask leaves out tokens of zero."""
    return chain(
        layers.Embedding(6, 4, mask_zero=mask_zero),
        layers.LSTM(5, return_sequences=True),
        layers.Dense(CLASSES, activation="softmax"),
        shape=(None,),
        loss=loss,
    )


class LossOfItsOwn(layers.Layer):
    def call(self, inputs):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


@keras.saving.register_keras_serializable("fit_parity")
class Contrast(keras.Model):
    """A subclassed model that computes its own loss, in the way before `training` came."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return keras.ops.mean(keras.ops.square(y_pred[:, 0] - y) + 0.1 * y_pred[:, 1] ** 2)


def contrast():
    model = Contrast()
    model(X[:1])  # Builds it.
    return compiled(model)


def squared(y, prediction):
    return keras.ops.mean((y - prediction) ** 2)


def mixed_precision():
    policy = keras.DTypePolicy("mixed_bfloat16")
    hidden = layers.Dense(5, "relu", dtype=policy)
    return compiled(
        keras.Sequential([keras.Input((FEATURES,)), hidden, layers.Dense(1, dtype="float32")]),
        "mse",
    )


FORMS = {
    "mse of labels [n]": (dense("mean_squared_error"), (X, REAL)),
    "mse of labels [n, 1]": (dense("mean_squared_error"), (X, REAL[:, None])),
    "function of labels [n]": (dense(squared), (X, REAL)),
    "hinge": (dense("hinge"), (X, BINARY)),
    "squared hinge": (dense("squared_hinge"), (X, 2 * BINARY - 1)),
    "categorical hinge": (dense("categorical_hinge", CLASSES), (X, ONE_HOT)),
    "poisson": (dense("poisson", activation="softplus"), (X, POSITIVE)),
    "kl divergence of labels [n]": (dense("kl_divergence", activation="sigmoid"), (X, POSITIVE)),
    "binary crossentropy": (dense("binary_crossentropy", activation="sigmoid"), (X, BINARY)),
    "binary crossentropy of logits": (
        dense(losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)),
        (X, BINARY),
    ),
    "binary focal": (dense("binary_focal_crossentropy", activation="sigmoid"), (X, BINARY)),
    "categorical crossentropy": (
        dense("categorical_crossentropy", CLASSES, "softmax"),
        (X, ONE_HOT),
    ),
    "categorical focal": (
        dense("categorical_focal_crossentropy", CLASSES, "softmax"),
        (X, ONE_HOT),
    ),
    "sparse crossentropy of labels [n]": (
        dense("sparse_categorical_crossentropy", CLASSES, "softmax"),
        (X, LABELS),
    ),
    "sparse crossentropy of labels [n, 1]": (
        dense("sparse_categorical_crossentropy", CLASSES, "softmax"),
        (X, LABELS[:, None]),
    ),
    "mae": (dense("mae"), (X, REAL)),
    "mape": (dense("mape"), (X, POSITIVE)),
    "msle": (dense("msle", activation="softplus"), (X, POSITIVE)),
    "huber": (dense(losses.Huber(0.5)), (X, REAL)),
    "log cosh": (dense("log_cosh"), (X, REAL)),
    "cosine similarity": (dense("cosine_similarity", CLASSES), (X, ONE_HOT)),
    "a sum instead of a mean": (dense(losses.MeanSquaredError(reduction="sum")), (X, REAL)),
    "float64 data": (dense("mse"), (X.astype("float64"), REAL.astype("float64"))),
    "sample weights": (dense("mse"), (X, REAL, WEIGHTS)),
    "sample weights of a function": (dense(lambda y, p: (y - p) ** 2), (X, REAL, WEIGHTS)),
    "regularizers": (
        chain(
            layers.Dense(5, "tanh", kernel_regularizer="l2", activity_regularizer="l1"),
            layers.Dense(1, bias_regularizer="l1"),
            loss="mse",
        ),
        (X, REAL),
    ),
    "a layer's own loss": (chain(LossOfItsOwn(), layers.Dense(1), loss="mse"), (X, REAL)),
    "dropout and noise": (
        chain(
            layers.GaussianNoise(0.3, seed=1),
            layers.Dense(8, "relu"),
            layers.Dropout(0.5, seed=2),
            layers.Dense(1),
            loss="mse",
        ),
        (X, REAL),
    ),
    "batch normalization": (
        chain(layers.Dense(5), layers.BatchNormalization(), layers.Dense(1), loss="mse"),
        (X, REAL),
    ),
    "a mask": (tagger(), (TOKENS, TAGS)),
    "a mask and sample weights": (tagger(), (TOKENS, TAGS, RANDOM.uniform(0, 2, TAGS.shape))),
    "one loss for a list of outputs": (branches("mse", as_list), (X, (REAL, ONE_HOT))),
    "a list of losses": (
        branches(["mae", "categorical_crossentropy"], as_list, loss_weights=[0.3, 2.0]),
        (X, (REAL, ONE_HOT)),
    ),
    "an output without a loss": (branches(["mae", None], as_list), (X, (REAL, ONE_HOT))),
    "one loss for a dictionary of outputs": (
        branches("mse", as_dictionary),
        (X, {"a": REAL, "b": ONE_HOT}),
    ),
    "a dictionary of losses": (
        branches(
            {"a": "mse", "b": "categorical_crossentropy"},
            as_dictionary,
            loss_weights={"a": 0.5, "b": 3.0},
            metrics={"b": ["accuracy"]},
        ),
        (X, {"a": REAL, "b": ONE_HOT}),
    ),
    "weights for each output": (
        branches({"a": "mse", "b": "categorical_crossentropy"}, as_dictionary),
        (X, {"a": REAL, "b": ONE_HOT}, {"a": WEIGHTS, "b": WEIGHTS[::-1].copy()}),
    ),
    "two inputs": (two_inputs, ({"left": X, "right": REAL[:, None]}, REAL)),
    "a subclass with its own loss": (contrast, (X, REAL)),
    "mixed precision": (mixed_precision, (X, REAL)),
    "metrics": (
        dense("mse", metrics=["mae"], weighted_metrics=["mse"]),
        (X, REAL, WEIGHTS),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_those_of_fit(form):
    model_fn, data = FORMS[form]
    assert_parity(model_fn, KerasTask(model_fn, dataset=data, batch_size=16))


def assert_parity(model_fn, task):
    """Compares with a step of `fit` with SGD at a learning rate of 1."""
    parameters, state = task.sample("train", 3)
    batch = task.batch("train", tf.constant([1, 2]))
    run = tf.function(task.loss_and_gradient, autograph=False)
    found, gradient, next_state = run(parameters, state, batch)

    model = model_fn()
    trainable, others = model.trainable_variables, model.non_trainable_variables
    for variable, value in zip(trainable, task.unflatten(parameters), strict=True):
        variable.assign(value)
    for variable, value in zip(others, state, strict=True):
        variable.assign(value)
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    count = len(tf.nest.flatten(x)[0])
    history = model.fit(x, y, count, verbose=0, shuffle=False, sample_weight=weights).history
    np.testing.assert_allclose(found, history["loss"], rtol=1e-6)
    moved = [np.ravel(v) for v in trainable]
    np.testing.assert_allclose(parameters - gradient, np.concatenate(moved), rtol=1e-5, atol=1e-6)
    for value, variable in zip(next_state, others, strict=True):
        np.testing.assert_allclose(value, variable, rtol=1e-5, atol=1e-6)


class Batches(keras.utils.PyDataset):
    """Minibatches of 6, the last one smaller."""

    def __len__(self):
        return -(-COUNT // 6)

    def __getitem__(self, index):
        own = slice(6 * index, 6 * index + 6)
        return X[own], REAL[own]


def rows_of(task):
    """All examples of a task, sorted by the first feature."""
    parts = [task.batch("test", (0, k)) for k in range(60)]
    parts += [task.held_out_batch(split, (0, k)) for split in SPLITS[1:] for k in range(40)]
    return np.unique(np.concatenate([batch[0] for batch in parts]), axis=0)


def slices(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


@pytest.mark.parametrize(
    ("make_dataset", "batch_size", "steps"),
    [
        (lambda: (X, REAL), 32, None),
        (lambda: slices(X, REAL), 32, None),
        (lambda: slices(X, REAL).batch(6), 6, None),
        (lambda: slices(X, REAL).batch(5, drop_remainder=True), 5, None),
        (lambda: slices(X, REAL).batch(20), 20, None),
        (lambda: slices(X, REAL).repeat().batch(8), 8, 5),
        (lambda: Batches(), 6, None),
        (lambda: iter([(X[:7], REAL[:7]), (X[7:], REAL[7:])]), 7, 2),
    ],
    ids=["arrays", "examples", "remainder", "even", "few", "endless", "PyDataset", "generator"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["in memory", "streamed"])
def test_data_are_read_as_fit_takes_them(make_dataset, batch_size, steps, stream):
    model_fn = dense("mse")
    task = KerasTask(model_fn, dataset=make_dataset(), steps_per_epoch=steps, stream=stream)
    x, y = task.batch("train", (0, 0))
    assert (x.shape, y.shape) == ((batch_size, FEATURES), (batch_size,))
    np.testing.assert_array_equal(rows_of(task), np.unique(X, axis=0))
    assert_parity(model_fn, task)


def test_batches_of_sequences_of_any_length_are_batches():
    sequences = RANDOM.normal(size=(160, 1)).astype("float32")
    model_fn = chain(layers.LSTM(3), layers.Dense(1), shape=(None, 1), loss="mse")
    task = KerasTask(model_fn, dataset=slices(sequences, sequences[:, 0]).batch(5))
    x, y = task.batch("train", (0, 0))
    assert (x.shape, y.shape) == ((5, 1), (5,))
    assert_parity(model_fn, task)


def batches_of_lengths():
    """Batches of sequences of which each is as long as the longest one in it."""
    lengths = RANDOM.integers(1, LENGTH + 1, COUNT)
    ragged = tf.ragged.stack([1 + TOKENS[k, :n] % 5 for k, n in enumerate(lengths)])
    tags = tf.ragged.stack([TAGS[k, :n] for k, n in enumerate(lengths)])
    examples = slices(ragged, tags).map(lambda x, y: (x, y))
    return examples.padded_batch(4, ([None], [None]))


def test_masked_sequences_are_padded_to_one_length():
    batches = batches_of_lengths()
    assert len({batch[0].shape for batch in batches}) > 1
    model_fn = tagger()
    task = KerasTask(model_fn, dataset=batches)
    assert task.batch("train", (0, 0))[0].shape == (4, max(b[0].shape[1] for b in batches))
    assert_parity(model_fn, task)
    # Tokens are positive: zeros are padding.
    sequences = {tuple(np.trim_zeros(row, "b")) for x, _ in batches for row in x.numpy()}
    drawn = np.concatenate([task.batch("test", (0, k))[0] for k in range(20)])
    assert {tuple(np.trim_zeros(row, "b")) for row in drawn} <= sequences
    # The loss that they have by themselves.
    optimizee = task.sample("train", 0)
    for x, y in batches.take(3):
        ends = [(0, 0), (0, LENGTH - x.shape[1])]
        own, padded = (
            task.held_out_loss(*optimizee, pair)
            for pair in ((x, y), (tf.pad(x, ends), tf.pad(y, ends)))
        )
        np.testing.assert_allclose(own, padded, rtol=1e-6)


def test_padding_that_counts_is_refused():
    message = "must not change the model's loss.*Received: a loss of .* that becomes"
    with pytest.raises(ValueError, match=message):
        KerasTask(tagger(mask_zero=False), dataset=batches_of_lengths())


def test_class_weights_are_those_of_fit():
    model_fn = dense("sparse_categorical_crossentropy", CLASSES, "softmax")
    class_weight = {0: 3.0, 2: 0.5}
    for labels in (LABELS, LABELS[:, None]):
        task = KerasTask(model_fn, dataset=(X, labels), class_weight=class_weight, batch_size=16)
        _, y, weights = task.batch("train", (0, 0))
        expected = [class_weight.get(int(label), 1.0) for label in np.ravel(y)]
        np.testing.assert_array_equal(weights, expected)
        assert_parity(model_fn, task)
        # As in `fit`, they do not count in validation.
        assert len(task.held_out_batch("test", (0, 0))) == 2
    one_hot = KerasTask(
        dense("categorical_crossentropy", CLASSES, "softmax"),
        dataset=(X, ONE_HOT),
        class_weight=class_weight,
        batch_size=16,
    )
    np.testing.assert_array_equal(one_hot.batch("train", (0, 0))[2], weights)
    with pytest.raises(ValueError, match="no sample weights.*class_weight="):
        KerasTask(model_fn, dataset=(X, LABELS, WEIGHTS), class_weight=class_weight)


def test_a_perfect_model_has_no_loss():
    """Labels `[n]` and predictions `[n, 1]` are not compared pair by pair."""
    task = KerasTask(dense(squared), dataset=(X, X @ np.ones(FEATURES, "float32")))
    losses, _ = task.loss(tf.constant([1.0] * FEATURES + [0.0]), (), task.batch("train", (0, 0)))
    np.testing.assert_allclose(losses, [0.0], atol=1e-10)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
