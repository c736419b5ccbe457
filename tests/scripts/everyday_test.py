"""Everyday programs, end to end: meta-train on one's own model, evaluate, and train with `fit`."""

import json
import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras import LearnedOptimizer
from tests.scripts.evaluate_test import evaluate_here
from tests.scripts.meta_train_test import train_here

INPUTS_AND_OUTPUTS = '''
"""A functional model of two inputs and two outputs, with sample weights."""
import keras
import numpy as np

from l2l_keras.tasks import KerasTask

random = np.random.default_rng(0)
numbers = random.normal(size=(120, 4)).astype("float32")
kinds = random.integers(0, 3, (120, 1)).astype("float32")
x = {"numbers": numbers, "kind": kinds}
y = {"size": numbers.sum(axis=1, keepdims=True), "large": (numbers[:, :1] > 0).astype("float32")}
inputs = x
weights = {name: random.uniform(0.5, 1.5, 120).astype("float32") for name in y}


def model_fn():
    numbers, kind = keras.Input((4,), name="numbers"), keras.Input((1,), name="kind")
    code = keras.layers.Flatten()(keras.layers.Embedding(3, 2)(kind))
    hidden = keras.layers.Dense(5, "relu")(keras.layers.Concatenate()([numbers, code]))
    size = keras.layers.Dense(1, name="size")(hidden)
    large = keras.layers.Dense(1, "sigmoid", name="large")(hidden)
    model = keras.Model({"numbers": numbers, "kind": kind}, {"size": size, "large": large})
    model.compile(
        loss={"size": "mse", "large": "binary_crossentropy"},
        loss_weights={"size": 0.5, "large": 1.0},
        metrics={"size": ["mae"], "large": ["accuracy"]},
    )
    return model


def make_task():
    return KerasTask(model_fn, dataset=(x, y, weights), batch_size=10, name="sizes")


def fit_data():
    return {"x": x, "y": y, "sample_weight": weights, "validation_data": (x, y, weights)}
'''

TEXT = '''
"""A classifier of texts, which come in minibatches."""
import keras
import numpy as np
import tensorflow as tf

from l2l_keras.tasks import KerasTask

WORDS = {0: "bad poor dull", 1: "good great fine"}
random = np.random.default_rng(0)
labels = random.integers(0, 2, 120)
texts = [
    " ".join(random.choice([*WORDS[label].split(), "it", "was"], random.integers(1, 6)))
    for label in labels
]
vectorize = keras.layers.TextVectorization(max_tokens=20, output_sequence_length=6)
vectorize.adapt(texts)
inputs = vectorize(texts).numpy()
dataset = tf.data.Dataset.from_tensor_slices((texts, labels.astype("float32"))).batch(16)
dataset = dataset.map(lambda text, label: (vectorize(text), label))


def model_fn():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int64"),
            layers.Embedding(20, 4, mask_zero=True),
            layers.LSTM(4),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile(loss="binary_crossentropy", metrics=["accuracy"])
    return model


def make_task():
    return KerasTask(model_fn, dataset=dataset, name="texts")


def fit_data():
    return {"x": dataset, "validation_data": dataset}
'''

IMAGES = '''
"""A classifier of images with augmentation, batch normalization and dropout."""
import keras
import numpy as np

from l2l_keras.tasks import KerasTask

random = np.random.default_rng(0)
labels = random.integers(0, 2, 120)
images = random.uniform(0, 100, (120, 8, 8, 1)) + 100 * labels[:, None, None, None]
inputs = images


def model_fn():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(0.1, 0.1),
            layers.Conv2D(3, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    return model


def make_task():
    return KerasTask(model_fn, dataset=(images, labels), batch_size=12, name="images")


def fit_data():
    return {"x": images, "y": labels, "validation_split": 0.25}
'''


@pytest.mark.parametrize(
    ("program", "metrics"),
    [
        (INPUTS_AND_OUTPUTS, {"large_accuracy", "size_mae"}),
        (TEXT, {"accuracy"}),
        (IMAGES, {"accuracy"}),
    ],
    ids=["inputs and outputs", "text", "images"],
)
def test_own_models_are_meta_trained_evaluated_and_trained(program, metrics, tmp_path, capsys):
    path = tmp_path / "program.py"
    path.write_text(program)
    task = f"--task={path}:make_task"
    folder = tmp_path / "run"
    train_here(
        task,
        "--rule=rnnprop",
        "--rule_option=units=(3,)",
        "--horizon=8",
        "--unroll=4",
        "--epochs=1",
        "--episodes=1",
        "--validation_episodes=1",
        "--meta_loss_on=validation",
        "--noevaluate",
        f"--output_dir={folder}",
    )
    history = (folder / "history.csv").read_text().splitlines()[0].split(",")
    assert {"val_held_out_loss", *(f"val_held_out_{name}" for name in metrics)} <= set(history)

    flags = ("--baseline=Adam (default)", "--steps=4", "--seeds=2")
    preset = f"--preset={folder / 'preset'}"
    evaluate_here(task, preset, *flags, f"--output_dir={tmp_path / 'report'}")
    last_line = capsys.readouterr().out.splitlines()[-1]
    report = json.loads((tmp_path / "report" / "results.json").read_text())
    name = report["settings"]["task"]
    assert last_line.startswith((f"Use preset on {name}", f"Do not use preset on {name}"))
    for result in report["results"]:
        assert metrics < result["held_out"].keys()
        assert np.isfinite(result["mean_final_loss"])

    train(runpy.run_path(str(path)), folder / "preset", tmp_path)


def train(own, preset, folder):
    """Trains a program's model with callbacks; saves, loads and exports it."""
    callbacks = keras.callbacks
    model, data = own["model_fn"](), own["fit_data"]()
    optimizer = LearnedOptimizer.from_preset(preset)
    # As it was compiled, with another optimizer.
    model.compile_from_config(
        model.get_compile_config() | {"optimizer": keras.saving.serialize_keras_object(optimizer)}
    )
    history = model.fit(
        **data,
        epochs=2,
        verbose=0,
        callbacks=[
            callbacks.TensorBoard(str(folder / "logs")),
            callbacks.EarlyStopping(patience=5),
            callbacks.ReduceLROnPlateau(patience=1, min_delta=1e9),
            callbacks.ModelCheckpoint(str(folder / "best.keras"), save_best_only=True),
        ],
    ).history
    assert np.isfinite(history["val_loss"]).all()
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)  # Reduced once.
    assert (folder / "best.keras").is_file() and any((folder / "logs").iterdir())

    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    x = own["inputs"]
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(
        tf.nest.flatten(loaded.predict(x, verbose=0)), tf.nest.flatten(expected)
    )
    loaded.fit(**data, verbose=0)
    assert int(loaded.optimizer.iterations) > int(model.optimizer.iterations)

    model.export(folder / "export", verbose=False)
    exported = tf.saved_model.load(folder / "export")
    inputs = [
        tf.cast(part, tensor.dtype)
        for part, tensor in zip(tf.nest.flatten(x), model.inputs, strict=True)
    ]
    served = exported.serve(tf.nest.pack_sequence_as(x, inputs))
    for a, b in zip(tf.nest.flatten(served), tf.nest.flatten(expected), strict=True):
        assert a.shape == b.shape and np.isfinite(a).all()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
