"""Tests of what all rules have in common: configurations, initial weights, and given weights."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.rules import (
    NTMBFGS,
    CoordinatewiseLSTM,
    GlobalAveragingLSTM,
    MomentumLSTM,
    RNNprop,
    TensorwiseLSTM,
)

_LSTM = {"units": [4, 3], "forget_bias": 2.0, "seed": 3, "name": "mine"}
_ADAM = {**_LSTM, "beta_2": 0.7, "epsilon": 0.1}
_PREPROCESSED = {**_LSTM, "preprocessing": "none", "output_scale": 0.5}
ARGUMENTS = {
    CoordinatewiseLSTM: _PREPROCESSED,
    GlobalAveragingLSTM: {**_PREPROCESSED, "averaged_units": 2},
    MomentumLSTM: {**_ADAM, "rate": 0.3, "adaptive_rate": 0.2, "momentum": 0.8},
    RNNprop: {**_ADAM, "output_scale": 0.5, "beta_1": 0.8},
    NTMBFGS: {**_PREPROCESSED, "averaged_units": 2, "memory_rank": 3},
    TensorwiseLSTM: {
        "units": 5,
        "momenta": [[0.8, 0.9]],
        "orthogonal": [0],
        "whitened_rows": 8,
        "half_whitened_rows": 20.0,
        "nominal": 0.5,
        "largest_step": 0.7,
        "size_offset": 0.3,
        "largest_rise": 0.6,
        "fan_in_exponent": 0.6,
        "wide_fan_in": 9.0,
        "size_exponent": 0.4,
        "decay_exponent": 0.2,
        "decay_steps": 5.0,
        "seed": 3,
        "name": "mine",
    },
}
every_rule = pytest.mark.parametrize("cls", ARGUMENTS, ids=lambda cls: cls.__name__)


def first_update(rule):
    gradient = tf.constant([1.0, -0.3, 0.0, 1e-7, -20.0])
    return rule.step(gradient, rule.initial_state(5))[0].numpy()


@every_rule
def test_a_round_trip_keeps_all_arguments(cls):
    arguments = ARGUMENTS[cls]
    rule = cls(**arguments)
    defaults = inspect.signature(cls).parameters
    assert all(value != defaults[name].default for name, value in arguments.items())
    assert rule.get_config() == arguments
    assert set(arguments) == set(defaults)
    config = keras.saving.serialize_keras_object(rule)
    copy = keras.saving.deserialize_keras_object(config, safe_mode=True)
    assert type(copy) is cls
    assert copy.get_config() == arguments
    np.testing.assert_array_equal(first_update(copy), first_update(rule))


@every_rule
def test_a_seed_decides_the_weights(cls):
    rules = [cls(**{**ARGUMENTS[cls], "seed": seed}) for seed in (5, 5, 6, None, None)]
    first, same, *others = (rule.get_weights() for rule in rules)
    for a, b in zip(first, same, strict=True):
        np.testing.assert_array_equal(a, b)
    for weights in [first, *others[:2]]:
        for variable, a, b in zip(rules[0].weights, weights, others[2], strict=True):
            assert "kernel" not in variable.name or not np.allclose(a, b)


@every_rule
def test_weights_stay_in_float32(cls):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        rule = cls()
    finally:
        keras.config.set_dtype_policy("float32")
    assert {w.dtype for w in rule.weights} == {"float32"}


@every_rule
def test_a_step_uses_the_weights_that_it_is_given(cls):
    rule, other = (cls(**{**ARGUMENTS[cls], "seed": seed}) for seed in (1, 2))
    with rule.using([w.value for w in other.weights]):
        update = first_update(rule)
    np.testing.assert_array_equal(update, first_update(other))
    assert np.abs(update - first_update(rule)).max() > 1e-6


_SEQUENCE = "a non-empty sequence of positive integers"
_PREPROCESSING = r"one of \['log_sign', 'none'\]"


@pytest.mark.parametrize(
    ("cls", "expected", "arguments"),
    [
        (CoordinatewiseLSTM, _SEQUENCE, {"units": ()}),
        (RNNprop, _SEQUENCE, {"units": (3, 0)}),
        (NTMBFGS, _SEQUENCE, {"units": (2.5,)}),
        (TensorwiseLSTM, _SEQUENCE, {"units": 0}),
        (CoordinatewiseLSTM, _PREPROCESSING, {"preprocessing": "log"}),
        (NTMBFGS, _PREPROCESSING, {"preprocessing": "log"}),
        (MomentumLSTM, r"in \[0, 1\)", {"momentum": 1.0, "beta_2": -0.1}),
        (RNNprop, r"in \[0, 1\)", {"beta_1": -0.1, "beta_2": 1.0}),
        (GlobalAveragingLSTM, "an integer from 0 to 20", {"averaged_units": -1}),
        (GlobalAveragingLSTM, "an integer from 0 to 20", {"averaged_units": 21}),
        (NTMBFGS, "an integer from 0 to 20", {"averaged_units": 1.0}),
        (NTMBFGS, "a positive integer or None", {"memory_rank": 0}),
        (NTMBFGS, "a positive integer or None", {"memory_rank": 2.0}),
        (TensorwiseLSTM, "pairs", {"momenta": ()}),
        (TensorwiseLSTM, "pairs", {"momenta": ((0.9,),)}),
        (TensorwiseLSTM, "pairs .* the first at most the root", {"momenta": ((0.999, 0.99),)}),
        (TensorwiseLSTM, "pairs", {"momenta": ((1.0, 0.999),)}),
        (TensorwiseLSTM, "indices of the 3 momenta", {"orthogonal": (3,)}),
        (TensorwiseLSTM, "an integer, 0 or more", {"whitened_rows": -1}),
        (TensorwiseLSTM, "an integer, 0 or more", {"whitened_rows": 0.5}),
        (TensorwiseLSTM, "an integer, 0 or more", {"whitened_rows": np.inf}),
        (TensorwiseLSTM, "positive", {"half_whitened_rows": 0.0, "size_offset": np.nan}),
        (TensorwiseLSTM, "positive", {"largest_rise": 0.0, "decay_steps": 0.0}),
        (TensorwiseLSTM, "positive or None", {"largest_step": 0.0, "wide_fan_in": 0.0}),
        (TensorwiseLSTM, "zero or positive", {"fan_in_exponent": -0.5, "size_exponent": -0.5}),
        (TensorwiseLSTM, "zero or positive", {"decay_exponent": -0.5}),
    ],
)
def test_wrong_arguments_are_refused(cls, expected, arguments):
    for name, value in arguments.items():
        with pytest.raises(ValueError, match=rf"`{name}` must be {expected}.*\. Received: {name}="):
            cls(**{name: value})


def test_a_configuration_of_an_earlier_version_makes_the_same_rule():
    config = TensorwiseLSTM(4, seed=0).get_config()
    removed = {"weight_decay": 0.0, "normalize_update": False, "relative_scale": False}
    assert TensorwiseLSTM.from_config({**config, **removed}).get_config() == config
    for name, value in {"weight_decay": 0.1, "normalize_update": True}.items():
        with pytest.raises(TypeError, match=name):
            TensorwiseLSTM.from_config({**config, **removed, name: value})


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
