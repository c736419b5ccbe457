"""Tests of presets by the names that Keras knows: in `compile`, in configurations, in searches."""

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

import l2l_keras
from l2l_keras import LearnedOptimizer, parameter_groups, presets
from tests.contract.harness import assert_equal, fit, numpy, regression_model

ON_ANOTHER_BACKEND = """
import sys

opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import keras
import l2l_keras
assert not [path for path in opened if path.endswith(".npz")]

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("l2l_keras>general-fast", "mse")
data = keras.ops.ones((8, 2)), 9.0 * keras.ops.ones((8, 1))
losses = model.fit(*data, epochs=3, verbose=0).history["loss"]
assert losses[2] < losses[0], losses
model.save("model.keras")
loaded = keras.models.load_model("model.keras").optimizer
assert type(loaded) is l2l_keras.LearnedOptimizer
assert int(loaded.iterations) == 3
print(keras.backend.backend())
"""


class TestCompile:
    @pytest.mark.parametrize("preset", ["general-fast", "quadratic", "cifar_convnet"])
    def test_trains_as_an_optimizer_of_the_preset(self, preset):
        named = regression_model(f"l2l_keras>{preset}")
        expected = regression_model(LearnedOptimizer.from_preset(preset))
        assert fit(named, 3) == fit(expected, 3)
        assert_equal(named.get_weights(), expected.get_weights())
        assert_equal(numpy(named.optimizer.variables), numpy(expected.optimizer.variables))

    def test_is_saved_and_loaded_as_any_learned_optimizer(self, tmp_path):
        model = regression_model("l2l_keras>general-fast")
        fit(model, 2)
        config = model.get_compile_config()["optimizer"]
        assert config["registered_name"] == "l2l_keras>LearnedOptimizer"
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert type(loaded.optimizer) is LearnedOptimizer
        for some in (model, loaded):
            fit(some, 2)
        assert_equal(loaded.get_weights(), model.get_weights())

    @pytest.mark.parametrize("backend", ["jax", "torch"])
    def test_works_on(self, backend, tmp_path):
        if not importlib.util.find_spec(backend):
            pytest.skip(f"Needs {backend}.")
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1]),
        }
        command = [sys.executable, "-c", ON_ANOTHER_BACKEND]
        shown = subprocess.check_output(command, text=True, env=environment, cwd=tmp_path)
        assert shown == f"{backend}\n"


class TestGet:
    def test_knows_every_shipped_preset(self):
        assert presets.names() == list(presets.list_presets())
        for name in presets.names():
            rule, _ = presets.load_preset(name)
            optimizer = keras.optimizers.get(f"l2l_keras>{name}")
            assert type(optimizer) is LearnedOptimizer
            assert_equal(
                numpy(parameter_groups.weights(optimizer.rule)),
                numpy(parameter_groups.weights(rule)),
            )

    def test_takes_arguments_in_a_configuration(self):
        schedule = keras.optimizers.schedules.CosineDecay(1.0, 100)
        config = {"learning_rate": keras.saving.serialize_keras_object(schedule), "guard": True}
        optimizer = keras.optimizers.get({"class_name": "l2l_keras>quadratic", "config": config})
        assert optimizer.guard is not None
        assert optimizer.get_config()["learning_rate"]["config"] == schedule.get_config()
        config = {"class_name": "l2l_keras>quadratic", "config": {"clipnorm": 2.0}}
        assert keras.optimizers.deserialize(config).clipnorm == 2.0

    def test_returns_what_is_copied_and_pickled(self):
        optimizer = keras.optimizers.get("l2l_keras>general-fast")
        copies = [
            keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)),
            type(optimizer).from_config(optimizer.get_config()),
            pickle.loads(pickle.dumps(optimizer)),
        ]
        for copy in copies:
            assert type(copy) is LearnedOptimizer
            assert_equal(copy.rule.get_weights(), optimizer.rule.get_weights())

    @pytest.mark.parametrize("name", ["l2l_keras>generl", "general", "l2l_keras>General"])
    def test_answers_an_unknown_name_as_keras_does(self, name):
        with pytest.raises(ValueError, match="Could not interpret optimizer identifier"):
            keras.optimizers.get(name)


def test_a_search_chooses_between_a_preset_and_adam(tmp_path):
    chosen = ["adam", "l2l_keras>general-fast"]

    def build(hp):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(hp.Choice("units", [1]))])
        model.compile(hp.Choice("optimizer", chosen), "mse")
        return model

    tuner = keras_tuner.GridSearch(
        build, "val_loss", max_trials=4, directory=tmp_path, project_name="search"
    )
    x = np.random.default_rng(0).normal(size=(32, 2)).astype("float32")
    y = x @ np.array([[1.0], [-1.0]], "float32")
    tuner.search(x, y, batch_size=4, epochs=3, validation_data=(x, y), verbose=0)
    trials = tuner.oracle.get_best_trials(4)
    assert {t.hyperparameters.get("optimizer") for t in trials} == {*chosen}
    assert trials[0].hyperparameters.get("optimizer") == "l2l_keras>general-fast"
    # Built anew, with the weights and the optimizer's state of its best epoch.
    assert isinstance(tuner.get_best_models()[0].optimizer, LearnedOptimizer)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
