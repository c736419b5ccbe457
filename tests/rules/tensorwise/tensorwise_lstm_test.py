"""Tests of the rule that has an LSTM cell for each tensor."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from l2l_keras.rules import Tensors, TensorwiseLSTM
from l2l_keras.rules.tensorwise.orthogonal import whiten_rows

SHAPES = [(6, 5), (5,), (2, 2, 3, 4)]


def trajectory(rule, gradients, tensors, parameters=None, compiled=False):
    """Updates of a rule, given the gradients of every step, `[steps, n]`, and the last state."""
    step = tf.function(rule.step) if compiled else rule.step  # Pays after a hundred steps.
    state = rule.initial_state(gradients.shape[1], len(tensors))
    theta = np.zeros(gradients.shape[1], "float32") if parameters is None else parameters
    updates = []
    for gradient in gradients:
        update, state = step(ops.array(gradient), state, ops.array(theta), tensors)
        updates.append(ops.convert_to_numpy(update))
        theta = theta + updates[-1]
    return np.array(updates), state


def trained(**arguments):
    """A rule with random weights and outputs of considerable size."""
    rule = TensorwiseLSTM(6, seed=0, **arguments)
    random = np.random.default_rng(1)
    rule.set_weights(
        [w + 0.3 * random.normal(size=w.shape).astype("float32") for w in rule.get_weights()]
    )
    return rule


def gradients(steps=6, seed=0, shapes=SHAPES):
    size = sum(int(np.prod(shape)) for shape in shapes)
    return np.random.default_rng(seed).normal(size=(steps, size)).astype("float32")


def constant(rule, output=lambda bias: 0.0 * bias):
    """The same rule with constant outputs of the LSTM: by default, zeros."""
    *weights, kernel, bias = rule.get_weights()
    rule.set_weights([*weights, 0.0 * kernel, output(bias)])
    return rule


def first_update(given, shapes=SHAPES, parameters=None, fan_ins=None, **arguments):
    """The first update of a rule with constant outputs and, unless given, no limit of steps."""
    rule = constant(TensorwiseLSTM(4, seed=0, **{"largest_step": None, **arguments}))
    return trajectory(rule, given[:1], Tensors(shapes, fan_ins), parameters)[0][0]


def rms(array):
    return np.sqrt(np.mean(np.square(array)))


@pytest.mark.parametrize("options", [{}, {"orthogonal": (0,)}, {"whitened_rows": 4}], ids=str)
def test_updates_vanish_with_the_gradients(options):
    """As where all examples are memorized: the rest of a momentum is not a direction."""
    rule = trained(momenta=((0.9, 0.99),), **options)
    given = gradients(steps=300)
    given[10:, :30] = 0.0
    updates, _ = trajectory(rule, given, Tensors(SHAPES), compiled=True)
    assert np.isfinite(updates).all()
    assert np.abs(updates[9, :30]).max() > 1e-4
    assert np.abs(updates[-1, :30]).max() < 1e-12
    assert np.abs(updates[-1, 30:]).max() > 1e-4


def test_it_starts_as_adam_with_a_small_step_size_that_it_reports():
    """With output weights of zero."""
    arguments = {"momenta": ((0.9, 0.999),), "largest_step": None, "fan_in_exponent": 0.0}
    rule = constant(TensorwiseLSTM(4, seed=0, **arguments))
    given = gradients()
    updates, state = trajectory(rule, given, Tensors(SHAPES))
    step_size = 3e-3 * np.exp(-1)
    assert float(rule.diagnose(state[-1])["step size"]) == pytest.approx(step_size, rel=1e-5)
    m = v = 0.0
    for t, g in enumerate(given, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        adam = (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
        np.testing.assert_allclose(updates[t - 1], -step_size * adam, rtol=2e-4, atol=1e-8)
    assert np.all(first_update(given, nominal=0.0) == 0.0)


class TestInvariance:
    @pytest.mark.parametrize("factor", [1e-6, 1e6])
    def test_the_scale_of_the_loss_does_not_matter(self, factor):
        rule, given = trained(), gradients(3)
        expected, _ = trajectory(rule, given, Tensors(SHAPES))
        scaled, _ = trajectory(rule, np.float32(factor) * given, Tensors(SHAPES))
        np.testing.assert_allclose(scaled, expected, rtol=1e-3, atol=1e-6)
        assert np.abs(expected).max() > 1e-5

    def test_the_order_of_tensors_and_of_their_elements_does_not_matter(self):
        rule, given = trained(), gradients(3)
        first = np.random.default_rng(2).permutation(30)
        order = np.concatenate([np.arange(35, 83), np.arange(30, 35), first])
        expected, _ = trajectory(rule, given, Tensors(SHAPES))
        actual, _ = trajectory(rule, given[:, order], Tensors(SHAPES[::-1]))
        np.testing.assert_allclose(actual, expected[:, order], rtol=1e-3, atol=1e-6)


class TestTensors:
    def test_they_exchange_information(self):
        """Through the mean of their hidden states, from the second step on."""
        rule, given = trained(), gradients(3)
        other = given.copy()
        other[:, 35:] = 0.1
        first, _ = trajectory(rule, given, Tensors(SHAPES))
        second, _ = trajectory(rule, other, Tensors(SHAPES))
        np.testing.assert_allclose(second[0, :35], first[0, :35], rtol=1e-5)
        assert np.abs(second[-1, :35] / first[-1, :35] - 1.0).max() > 1e-4

    def test_each_has_a_step_size_of_its_own(self):
        rule = trained()
        _, state = trajectory(rule, gradients(2), Tensors(SHAPES))
        own = [state[-1][:, k : k + 1] for k in range(len(SHAPES))]
        assert len({float(rule.diagnose(part)["step size"]) for part in own}) == len(SHAPES)

    def test_a_step_size_rises_no_faster_than_allowed(self):
        rule = constant(TensorwiseLSTM(4, largest_rise=0.2, seed=0), lambda bias: bias + 50.0)
        _, state = trajectory(rule, gradients(2), Tensors(SHAPES))
        expected = 3e-3 * np.exp(-1.0 + 2 * 0.2)
        assert float(rule.diagnose(state[-1])["step size"]) == pytest.approx(expected, rel=1e-3)


class TestOptions:
    @pytest.mark.parametrize(
        ("size", "arguments", "largest"),
        [
            (0.0, {}, 0.25 * 0.05),
            (1.0, {}, 0.25 * 1.05),
            (1.0, {"largest_step": 0.06, "size_offset": 0.4}, 0.06 * 1.4),
            (1.0, {"largest_step": None}, None),
        ],
    )
    def test_steps_are_limited_relative_to_the_parameters(self, size, arguments, largest):
        parameters = np.full(83, size, "float32")
        arguments = {"largest_step": 0.25, **arguments, "nominal": 1e4, "fan_in_exponent": 0.0}
        update = first_update(gradients(), parameters=parameters, **arguments)
        step = rms(update[:30])
        assert step > 5.0 if largest is None else 0.95 < step / largest < 1.0

    @pytest.mark.parametrize("largest_step", [None, 1e-6])
    def test_kernels_of_many_inputs_move_less(self, largest_step):
        """An embedding, of fan-in 1, moves as a bias does."""
        shapes, fan_ins = [(8,), (192, 4), (24, 8, 5, 4), (192, 4)], [1, 192, 960, 1]
        given = gradients(1, shapes=shapes)
        sizes = []
        for exponent in (0.0, 0.5):
            arguments = {"largest_step": largest_step, "fan_in_exponent": exponent}
            update = first_update(given, shapes, fan_ins=fan_ins, **arguments)
            sizes.append([rms(part) for part in np.split(update, [8, 776, 4616])])
        factors = np.array([(65 / 64) ** -0.5, 0.5, 0.25, (65 / 64) ** -0.5])
        # The limit of parameters that are zero is a product of two numbers that fall.
        expected = factors if largest_step is None else factors**2
        np.testing.assert_allclose(np.divide(*sizes[::-1]), expected, rtol=1e-3)

    def test_kernels_of_many_inputs_in_use_move_less(self):
        """Of the second kernel's 400 inputs, a minibatch has 25: words of a bag, say."""
        shapes = [(400, 4), (400, 5), (10, 3), (7,)]
        given = gradients(1, shapes=shapes)
        words = given[0, 1600:3600].reshape(400, 5)
        words[np.arange(400) % 16 != 3] = 0.0
        plain, wide = (first_update(given, shapes, wide_fan_in=n) for n in (None, 100.0))
        in_use = np.repeat([400.0, 25.0, 10.0, 1.0], [1600, 2000, 30, 7])
        expected = (1.0 + (in_use / 100.0) ** 2) ** -0.25
        np.testing.assert_allclose(wide, expected * plain, rtol=1e-4)

    def test_kernels_that_are_smaller_than_others_move_less(self):
        """Not those that begin as zeros, even when they have grown; nor biases nor embeddings."""
        shapes = [(96, 4), (28, 4), (3, 3, 4, 5), (46, 4), (30, 4), (7,)]
        tensors = Tensors(shapes, [96, 28, 36, 46, 1, 1])
        counts = [384, 112, 180, 184, 120, 7]
        glorot = np.sqrt(2.0 / np.array([96 + 4, 28 + 4, 36 + 45, 46 + 4, 1, 1]))
        sizes = glorot * [0.125, 2.0, 0.5, 0.0, 1e-3, 1e-3]
        parameters = np.repeat(sizes, counts).astype("float32")
        given = gradients(2, shapes=shapes)
        rules = [TensorwiseLSTM(4, largest_step=None, size_exponent=e, seed=0) for e in (0.0, 0.5)]
        plain, less = (trajectory(constant(r), given, tensors, parameters)[0] for r in rules)
        expected = np.repeat([0.5, 1.0, 1.0, 1.0, 1.0, 1.0], counts)
        np.testing.assert_allclose(less[0], expected * plain[0], rtol=1e-4)
        # The smallest kernel has changed a little since, and the zeros have grown.
        np.testing.assert_allclose(less[1], expected * plain[1], rtol=0.02)
        assert 1e-3 < rms(less[0][676:860]) / glorot[3] < 0.1

    def test_an_orthogonal_factor_is_a_direction(self):
        arguments = {"momenta": ((0.9, 0.99),), "orthogonal": (0,), "nominal": 0.0}
        rule = TensorwiseLSTM(4, largest_step=None, fan_in_exponent=0.0, seed=0, **arguments)
        constant(rule, lambda bias: np.eye(len(bias), dtype="float32")[0])
        given = gradients(1, shapes=[(6, 5)])
        updates, state = trajectory(rule, given, Tensors([(6, 5)]))
        step_size = ops.convert_to_numpy(rule.diagnose(state[-1])["step size"])
        values = np.linalg.svd(-updates.reshape(6, 5) / step_size / np.sqrt(6), compute_uv=False)
        assert values.min() > 0.6
        assert values.max() < 1.3


class TestWhitenedRows:
    @pytest.mark.parametrize(
        ("half_whitened_rows", "fractions"),
        [(32.0, (36 / 1060, 0.0, 0.5)), (6.0, (0.5, 0.0, 1024 / 1060))],
    )
    def test_updates_are_whitened_the_more_the_more_rows_they_have(
        self, half_whitened_rows, fractions
    ):
        """The LSTM's inputs, and so the state, do not depend on it."""
        shapes = [(6, 5), (5,), (4, 4, 2, 4)]
        given, tensors = gradients(1, shapes=shapes), Tensors(shapes)
        plain, expected_state = trajectory(trained(), given, tensors)
        rule = trained(whitened_rows=4, half_whitened_rows=half_whitened_rows)
        whitened, state = trajectory(rule, given, tensors)
        for a, b in zip(state, expected_state, strict=True):
            np.testing.assert_array_equal(*map(ops.convert_to_numpy, (a, b)))
        parts = (tensors.cut(ops.array(updates[0])) for updates in (plain, whitened))
        for before, after, shape, fraction in zip(*parts, shapes, fractions, strict=True):
            change = whiten_rows(before, shape, 4) - before
            np.testing.assert_allclose(after - before, fraction * change, rtol=1e-3, atol=1e-6)
            assert len(shape) < 2 or ops.max(ops.abs(change / before)) > 0.1

    def test_they_speed_up_a_regression_on_nearly_equal_inputs(self):
        random = np.random.default_rng(0)
        inputs = random.normal(size=(256, 1)) + 0.2 * random.normal(size=(256, 64))
        target = 0.02 * random.normal(size=(64, 6))
        tensors = Tensors([target.shape])

        def loss(**options):
            rule = constant(TensorwiseLSTM(4, seed=0, **options))
            step = tf.function(rule.step)
            state, theta = rule.initial_state(target.size), np.zeros(target.shape)
            for _ in range(100):
                gradient = inputs.T @ (inputs @ (theta - target)) / len(inputs)
                gradient, parameters = (ops.array(x.ravel(), "float32") for x in (gradient, theta))
                update, state = step(gradient, state, parameters, tensors)
                theta = theta + ops.convert_to_numpy(update).reshape(target.shape)
            return np.mean((inputs @ (theta - target)) ** 2)

        assert loss(whitened_rows=16) < 0.75 * loss()


def test_zero_gradients_have_finite_derivatives():
    rule = trained()
    state = rule.initial_state(83, 3)
    gradient = tf.zeros(83)
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        update, new_state = rule.step(gradient, state, tf.zeros(83), Tensors(SHAPES))
        value = tf.reduce_sum(tf.abs(update)) + sum(tf.reduce_sum(part) for part in new_state)
    for derivative in tape.gradient(value, [gradient, *rule.trainable_variables]):
        assert np.isfinite(derivative).all()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
