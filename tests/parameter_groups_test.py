"""Tests of the division of variables into groups."""

import collections

import keras
import pytest

from l2l_keras.parameter_groups import assign, members, only_rules, rules, weights
from l2l_keras.rules import CoordinatewiseLSTM


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


def test_a_pattern_that_is_none_is_refused(variables):
    with pytest.raises(ValueError, match=r"must be a regular expression.*Received: '\['"):
        assign(variables, [".*", "["])
    assert set(assign(variables, ["["], lambda v: "[")) == {"["}


def test_what_has_a_path_only_can_be_assigned():
    weight = collections.namedtuple("Weight", "path")
    assert assign([weight("a/bias"), weight("a/kernel")], ["bias", ".*"]) == ["bias", ".*"]


def test_a_rule_alone_is_one_group_of_all():
    rule = CoordinatewiseLSTM((2,), seed=0)
    assert members(rule) == rules(rule) == {".*": rule}
    assert only_rules(rule) == [rule]
    assert weights(rule) == rule.weights


def test_rules_of_groups_are_in_their_order():
    first, second = (CoordinatewiseLSTM((2,), seed=seed) for seed in range(2))
    groups = {"z": first, "a": second}
    assert only_rules(groups) == [first, second]
    assert weights(groups) == first.weights + second.weights
    with pytest.raises(ValueError, match="Every group must have an update rule. Received: .*'b'"):
        only_rules({**groups, "b": keras.optimizers.SGD()})
    with pytest.raises(ValueError, match="At least one group"):
        only_rules({})


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
