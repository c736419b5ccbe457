"""Tests of whole studies in Python, of models and data of any kind."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import l2l_keras
from l2l_keras import presets
from l2l_keras.rules import TensorwiseLSTM
from l2l_keras.tasks import KerasTask

STEPS, COUNT, BATCH = 10, 120, 8


class Batches(keras.utils.PyDataset):
    """Minibatches of two inputs, two outputs and a sample weight for each output."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.x = {name: rng.normal(size=(COUNT, 2)).astype("float32") for name in ("a", "b")}
        self.y = {"sum": self.x["a"] + self.x["b"], "sign": (self.x["a"][:, :1] > 0).astype(int)}
        self.weights = {name: rng.uniform(0.5, 1.5, COUNT) for name in self.y}

    def __len__(self):
        return COUNT // BATCH

    def __getitem__(self, index):
        own = slice(BATCH * index, BATCH * (index + 1))
        return tuple(
            {k: v[own] for k, v in part.items()} for part in (self.x, self.y, self.weights)
        )


class Energy(layers.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(1e-3 * keras.ops.mean(x**2))
        return x


def model_fn(units=4):
    inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
    hidden = Energy()(layers.Dense(units, "relu")(layers.Concatenate()(list(inputs.values()))))
    outputs = {
        "sum": layers.Dense(2, name="sum")(hidden),
        "sign": layers.Dense(1, "sigmoid", name="sign")(hidden),
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        loss={"sum": "mse", "sign": "binary_crossentropy"},
        loss_weights={"sum": 1.0, "sign": 0.5},
        metrics={"sum": ["mae"], "sign": ["accuracy", keras.metrics.AUC(name="auc")]},
    )
    return model


def as_data_set(batches):
    return tf.data.Dataset.from_tensor_slices((batches.x, batches.y, batches.weights)).batch(BATCH)


NAMES = {"loss", "sum_loss", "sum_mae", "sign_loss", "sign_accuracy", "sign_auc"}


def make_study(folder, targets):
    presets.save_preset(TensorwiseLSTM(4, seed=0), folder / "start", {"name": "start"})
    return l2l_keras.study(
        l2l_keras.studies.Plan(KerasTask(model_fn, dataset=Batches(), name="both"), STEPS, targets),
        folder / "out",
        minutes=1e-6,
        start=str(folder / "start"),
        seeds=2,
        tuning_seeds=1,
        baselines=["SGD"],
        progress=lambda line: None,
    )


@pytest.fixture(name="study", scope="module")
def study_fixture(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), {})


def assert_metrics_of_every_output(study, problem):
    comparison = study.outcome.problems[problem].comparison
    for result in comparison.results:
        assert set(result.held_out.metrics) == NAMES
        assert all(np.isfinite(values).all() for values in result.held_out.metrics.values())
    losses = comparison["SGD"].held_out.metrics["loss"]
    assert losses[:, -1].mean() < losses[:, 0].mean()


@pytest.mark.filterwarnings("ignore:Only .* examples:UserWarning")
def test_inputs_outputs_weights_and_losses_of_layers_may_be_several(study):
    assert_metrics_of_every_output(study, "both")
    with open(study.report.with_name("representative.csv"), encoding="utf-8") as file:
        assert NAMES - {"loss"} <= set(next(csv.reader(file)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Only .* examples:UserWarning")
def test_a_data_set_of_another_kind_may_be_transferred_to(tmp_path):
    wider = KerasTask(lambda: model_fn(16), dataset=as_data_set(Batches()), name="wider")
    study = make_study(tmp_path, {"wider": wider})
    assert_metrics_of_every_output(study, "wider")


@pytest.mark.filterwarnings("ignore:This preset was trained with:UserWarning")
def test_the_optimizer_trains_the_model_on_the_same_data(study):
    model = model_fn()
    rate = keras.optimizers.schedules.CosineDecay(1.0, STEPS)
    optimizer = l2l_keras.LearnedOptimizer.from_preset(study.preset, learning_rate=rate)
    config = model.get_compile_config()
    model.compile(optimizer=optimizer, loss=config["loss"], loss_weights=config["loss_weights"])
    history = model.fit(Batches(), epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
