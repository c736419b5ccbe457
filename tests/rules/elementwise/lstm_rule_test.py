"""What all rules that are an LSTM over every coordinate have in common."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l2l_keras.rules import CoordinatewiseLSTM, GlobalAveragingLSTM, MomentumLSTM, RNNprop, lstm

RULES = {
    "coordinatewise_lstm": CoordinatewiseLSTM,
    "coordinatewise_lstm_plain": lambda **kwargs: CoordinatewiseLSTM(
        preprocessing="none", **kwargs
    ),
    "global_averaging_lstm": functools.partial(GlobalAveragingLSTM, averaged_units=1),
    "momentum_lstm": MomentumLSTM,
    "rnnprop": RNNprop,
}
every_rule = pytest.mark.parametrize("make", RULES.values(), ids=RULES)


def random_inputs(rule, n, seed):
    """A gradient with magnitudes over many decades, a zero included, and the state after steps."""
    random = np.random.default_rng(seed)

    def draw():
        gradient = random.normal(size=n) * 10.0 ** random.uniform(-7, 1, n)
        return tf.constant(gradient * (np.arange(n) > 0), "float32")

    state = rule.initial_state(n)
    for _ in range(2):
        _, state = rule.step(draw(), state)
    return draw(), state


def randomize(rule, seed):
    """Gives every weight a value that a slip in the formula cannot hide behind, as zero could."""
    random = np.random.default_rng(seed)
    rule.set_weights([random.normal(size=w.shape).astype("float32") for w in rule.weights])
    return rule


def assert_close(actual, expected, tolerance=1e-5, least=1e-6):
    """Holds arrays to a tolerance relative to the largest number in each, or to `least`."""
    actual, expected = tf.nest.flatten(actual), tf.nest.flatten(expected)
    for part, expected_part in zip(actual, expected, strict=True):
        assert part.shape == expected_part.shape
        scale = max(np.abs(expected_part).max(), least)
        np.testing.assert_allclose(part, expected_part, rtol=tolerance, atol=tolerance * scale)


@every_rule
@settings(max_examples=8, deadline=None, derandomize=True)
@example([2], 7, 720)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 7), st.integers(0, 1000))
def test_backward_is_the_derivative_of_forward(make, units, n, seed):
    rule = randomize(make(units=units), seed)
    gradient, state = random_inputs(rule, n, seed)
    network_state, feature_state = rule.split_state(state)
    features, _ = rule.features(gradient, feature_state)
    features = tf.nest.map_structure(
        lambda part: tf.broadcast_to(part, (part.shape[0], n)), features
    )
    random = np.random.default_rng(seed + 1)
    d_outputs = tf.nest.map_structure(
        lambda part: tf.constant(random.normal(size=part.shape), tf.float32),
        (gradient, network_state),  # Of the shapes of the update and of the next state.
    )

    weights = [w.value for w in rule.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch((features, network_state))
        update, new_state, cache = rule.forward(features, network_state)
    expected = tape.gradient(
        (update, new_state), (weights, features, network_state), output_gradients=d_outputs
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstm, "pack", lambda activations: 32767.0 * activations)
        *_, exact_cache = rule.forward(features, network_state)
    # The formula by itself, and with the 16 bits in which gates are kept.
    for kept, tolerance in ((exact_cache, 1e-4), (cache, 6e-4)):
        arguments = (features, network_state, new_state, kept, *d_outputs)
        assert_close(rule.backward(*arguments, with_features=True), expected, tolerance, least=0.1)
        d_weights, d_features, d_state = rule.backward(*arguments, with_features=False)
        assert d_features is None
        assert_close((d_weights, d_state), (expected[0], expected[2]), tolerance, least=0.1)


@every_rule
def test_step_is_forward_of_features(make):
    rule = randomize(make(units=(4, 3)), 0)
    gradient, state = random_inputs(rule, 6, seed=1)
    update, new_state = rule.step(gradient, state)
    assert [tuple(part.shape) for part in new_state] == [(rows, 6) for rows in rule.state_rows]
    assert {part.dtype for part in (update, *new_state)} == {tf.float32}
    network_state, feature_state = rule.split_state(state)
    assert len(feature_state) == len(rule.feature_rows)
    features, feature_state = rule.features(gradient, feature_state)
    expected, network_state, _ = rule.forward(features, network_state)
    assert_close((update, new_state), (expected, (*network_state, *feature_state)), 0.0)


@every_rule
def test_replay_gives_the_states_of_forward(make):
    rule = randomize(make(units=(4, 3)), 0)
    gradient, state = random_inputs(rule, 6, seed=1)
    network_state, feature_state = rule.split_state(state)
    features, _ = rule.features(gradient, feature_state)
    _, expected, cache = rule.forward(features, network_state)
    replayed = rule.replay(network_state, cache)
    for part, expected_part in zip(replayed, expected, strict=True):
        # An error of 1.5e-5 in each of three gates.
        np.testing.assert_allclose(part, expected_part, atol=1e-4)
    # A fraction of the memory of the states and gates themselves.
    assert sum(part.dtype.size * part.shape[0] for part in cache) == 2 * 4 * sum(rule.units)


@every_rule
def test_coordinates_in_another_order_have_their_updates_in_that_order(make):
    rule = randomize(make(units=(5, 4)), 0)
    gradient, state = random_inputs(rule, 9, seed=1)
    order = np.random.default_rng(2).permutation(9)
    update, new_state = rule.step(gradient, state)
    permuted, permuted_state = rule.step(
        tf.gather(gradient, order), tuple(tf.gather(part, order, axis=1) for part in state)
    )
    assert_close(permuted, update.numpy()[order])
    assert_close(permuted_state, tuple(part.numpy()[:, order] for part in new_state))


@every_rule
def test_a_zero_gradient_has_a_finite_update_and_finite_derivatives(make):
    rule = make(units=(4, 3), seed=0)
    gradient = tf.zeros(3)
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        state = rule.initial_state(3)
        for _ in range(3):
            update, state = rule.step(gradient, state)
    derivatives = tape.gradient(update, [gradient, *(w.value for w in rule.trainable_variables)])
    assert np.isfinite(update).all()
    assert all(np.isfinite(d).all() for d in derivatives)
    assert np.abs(derivatives[0]).max() > 0


@every_rule
def test_a_round_trip_keeps_the_configuration(make):
    rule = make(units=(4, 3), forget_bias=2.0, seed=3, name="mine")
    config = keras.saving.serialize_keras_object(rule)
    copy = keras.saving.deserialize_keras_object(config, safe_mode=True)
    assert type(copy) is type(rule)
    assert copy.get_config() == rule.get_config()
    gradient, state = random_inputs(rule, 5, seed=0)
    assert_close(copy.step(gradient, state), rule.step(gradient, state), 0.0)


@every_rule
def test_a_seed_decides_the_weights(make):
    first, second, other = (make(units=(4, 3), seed=seed) for seed in (5, 5, 6))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = {"kernel_0", "recurrent_kernel_0", "output_kernel"}
    for a, b in zip(first.weights, other.weights, strict=True):
        assert a.name not in kernels or not np.allclose(a, b)
    fresh = [make(units=(4, 3)).get_weights()[0] for _ in range(2)]
    assert not np.allclose(*fresh)


@every_rule
def test_only_forget_gates_have_a_bias_at_first(make):
    rule = make(units=(2,), forget_bias=1.5)
    bias = next(w for w in rule.weights if w.name == "bias_0")
    np.testing.assert_array_equal(bias, [0, 0, 1.5, 1.5, 0, 0, 0, 0])


@every_rule
def test_weights_stay_in_float32(make):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        rule = make(units=(2,))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {w.dtype for w in rule.weights} == {"float32"}


@every_rule
@pytest.mark.parametrize("units", [(), (3, 0), (2.5,)], ids=str)
def test_units_that_are_none_are_refused(make, units):
    with pytest.raises(ValueError, match="`units` must be .*Received: "):
        make(units=units)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
