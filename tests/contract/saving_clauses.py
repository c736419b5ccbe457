"""Clauses about what is saved: configurations, models, weights, checkpoints."""

import copy
import json
import pickle
import tempfile
from pathlib import Path

import keras
import numpy as np

from tests.contract.harness import (
    Make,
    assert_close,
    assert_equal,
    clause,
    fit,
    load_strictly,
    make_gradients,
    make_variables,
    numpy,
    regression_data,
    regression_model,
    rule_of,
    tensors,
    train,
)


def perturbed(optimizer):
    """An optimizer whose rule has weights that no seed gives."""
    rule_of(optimizer).set_weights([w + 0.1 for w in rule_of(optimizer).get_weights()])
    return optimizer


def check_resuming(optimizer) -> None:
    def train_on(model: keras.Model) -> None:
        # Not `fit`: on JAX, Keras cannot `fit` with `use_ema` a second time, Adam neither.
        for _ in range(3):
            model.train_on_batch(*regression_data())

    model = regression_model(optimizer)
    train_on(model)
    saved = model.get_weights()
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        loaded = load_strictly(Path(folder) / "model.keras")
    assert type(loaded.optimizer) is type(optimizer)
    assert_equal(numpy(loaded.optimizer.variables), numpy(model.optimizer.variables))
    train_on(loaded)
    train_on(model)
    assert_equal(loaded.get_weights(), model.get_weights())
    assert_equal(numpy(loaded.optimizer.variables), numpy(model.optimizer.variables))
    assert not np.array_equal(saved[0], model.get_weights()[0])


@clause()
def a_saved_model_resumes_bit_for_bit(make: Make) -> None:
    check_resuming(perturbed(make()))


@clause()
def a_saved_model_resumes_with_all_that_it_kept(make: Make) -> None:
    check_resuming(
        make(
            gradient_accumulation_steps=2,
            use_ema=True,
            clipnorm=0.5,
            weight_decay=0.001,
            state_dtype="bfloat16",
        )
    )


@clause()
def a_saved_model_resumes_under_loss_scaling(make: Make) -> None:
    check_resuming(keras.optimizers.LossScaleOptimizer(perturbed(make())))


@clause()
def weights_alone_resume_in_another_optimizer(make: Make) -> None:
    model = regression_model(perturbed(make()))
    fit(model, 2)
    other = regression_model(make(), seed=1)
    other.optimizer.build(other.trainable_variables)
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(Path(folder) / "model.weights.h5")
        other.load_weights(Path(folder) / "model.weights.h5")
    assert_equal(rule_of(other.optimizer).get_weights(), rule_of(model.optimizer).get_weights())
    assert_equal(numpy(other.optimizer.variables), numpy(model.optimizer.variables))
    assert fit(other, 2) == fit(model, 2)


@clause("tensorflow")
def a_checkpoint_holds_rule_and_state(make: Make) -> None:
    import tensorflow as tf

    optimizer = perturbed(make())
    variables = train(optimizer, steps=2)
    resumed, resumed_variables = make(), make_variables()
    resumed.build(resumed_variables)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = tf.train.Checkpoint(optimizer=optimizer, v=variables)
        path = checkpoint.save(f"{folder}/checkpoint")
        status = tf.train.Checkpoint(optimizer=resumed, v=resumed_variables).restore(path)
        status.assert_consumed()
    assert_equal(rule_of(resumed).get_weights(), rule_of(optimizer).get_weights())
    for some, others in ((optimizer, variables), (resumed, resumed_variables)):
        some.apply(tensors(make_gradients(2)), others)
    assert_equal(numpy(resumed_variables), numpy(variables))
    assert_equal(numpy(resumed.variables), numpy(optimizer.variables))


@clause("tensorflow")
def a_model_is_exported_with_its_optimizer(make: Make) -> None:
    import tensorflow as tf

    model = regression_model(make())
    fit(model, 1)
    x, _ = regression_data()
    expected = model.predict(x, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/exported", verbose=False)
        tf.saved_model.save(model, f"{folder}/saved")
        exported = tf.saved_model.load(f"{folder}/exported")
        assert_close([exported.serve(x)], [expected])
        signature = tf.saved_model.load(f"{folder}/saved").signatures["serving_default"]
        (output,) = signature(tf.constant(x)).values()
        assert_close([output], [expected])


@clause()
def a_configuration_gives_the_same_optimizer(make: Make) -> None:
    arguments = {
        "learning_rate": 0.25,
        "state_dtype": "bfloat16",
        "runaway_factor": 50.0,
        "weight_decay": 0.1,
        "clipnorm": 2.0,
        "clipvalue": None,
        "global_clipnorm": None,
        "use_ema": True,
        "ema_momentum": 0.9,
        "ema_overwrite_frequency": 3,
        "loss_scale_factor": 2.0,
        "gradient_accumulation_steps": 2,
        "name": "mine",
    }
    optimizer = perturbed(make(**arguments))
    for duplicate in (
        lambda config: json.loads(json.dumps(config)),
        lambda config: pickle.loads(pickle.dumps(config)),
        copy.deepcopy,
    ):
        config = duplicate(optimizer.get_config())
        assert {key: config[key] for key in arguments} == arguments
        untouched = copy.deepcopy(config)
        other = type(optimizer).from_config(config)
        assert config == untouched == other.get_config()
        assert_equal(rule_of(other).get_weights(), rule_of(optimizer).get_weights())
    assert_equal(numpy(train(other)), numpy(train(optimizer)))


@clause()
def keras_serializes_it_by_its_registered_name(make: Make) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 10)
    original = perturbed(make(learning_rate=schedule))
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(original))
    assert type(optimizer) is type(original)
    assert_equal(rule_of(optimizer).get_weights(), rule_of(original).get_weights())
    assert optimizer.get_config()["learning_rate"]["class_name"] == "CosineDecay"


@clause()
def a_saved_model_is_little_larger_than_state_and_weights(make: Make) -> None:
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(500)])
    model.compile(make(), "mse")
    model.optimizer.build(model.trainable_variables)
    weights = 4 * model.count_params()
    slots = weights * sum(rule_of(model.optimizer).state_rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        assert path.stat().st_size < 1.1 * slots + 1.1 * weights
