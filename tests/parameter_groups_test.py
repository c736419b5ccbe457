"""Tests of the division of variables into groups."""

import keras
import pytest

from l2l_keras.parameter_groups import assign


@pytest.fixture(name="variables")
def variables_fixture():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(2, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="dense"),
        ],
        name="model",
    )
    return model.trainable_variables


def test_the_first_pattern_found_in_the_path_counts(variables):
    names = assign(variables, ["gamma|beta|bias", "conv", ".*"])
    assert names == ["conv", *["gamma|beta|bias"] * 3, ".*", "gamma|beta|bias"]


def test_a_function_may_say(variables):
    names = assign(variables, ["a", "b"], lambda v: "a" if len(v.shape) > 1 else "b")
    assert names == ["a", "b", "b", "b", "a", "b"]


def test_a_variable_of_no_group_is_named(variables):
    with pytest.raises(ValueError, match="'norm/gamma'|norm/gamma'"):
        assign(variables, ["conv"])
    with pytest.raises(ValueError, match="return one of .'a'.. Received: 'c' for the variable"):
        assign(variables, ["a"], lambda v: "c")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
