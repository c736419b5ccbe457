"""Tests of the rule that has an LSTM cell for each tensor."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from l2l_keras.rules import Tensors, TensorwiseLSTM
from l2l_keras.rules.tensorwise.orthogonal import whiten_rows

SHAPES = [(6, 5), (5,), (2, 2, 3, 4)]


def trajectory(rule, gradients, tensors, parameters=None):
    """Updates of a rule, given the gradients of every step, `[steps, n]`."""
    state = rule.initial_state(gradients.shape[1], len(tensors))
    theta = np.zeros(gradients.shape[1], "float32") if parameters is None else parameters
    updates = []
    for gradient in gradients:
        update, state = rule.step(ops.array(gradient), state, ops.array(theta), tensors)
        updates.append(ops.convert_to_numpy(update))
        theta = theta + updates[-1]
    return np.array(updates), state


def trained(**arguments):
    """A rule whose outputs are of a size that tells."""
    rule = TensorwiseLSTM(6, seed=0, **arguments)
    random = np.random.default_rng(1)
    rule.set_weights(
        [w + 0.3 * random.normal(size=w.shape).astype("float32") for w in rule.get_weights()]
    )
    return rule


def gradients(steps=6, seed=0, shapes=SHAPES):
    size = sum(int(np.prod(shape)) for shape in shapes)
    return np.random.default_rng(seed).normal(size=(steps, size)).astype("float32")


def constant(rule, output=None):
    """The same rule, but that its LSTM puts out the same whatever it sees: by default, zeros."""
    *weights, kernel, bias = rule.get_weights()
    rule.set_weights([*weights, 0.0 * kernel, bias if output is None else output(bias)])
    return rule


@pytest.mark.parametrize("options", [{}, {"orthogonal": (0,)}, {"whitened_rows": 4}])
def test_where_there_are_no_more_gradients_it_stands_still(options):
    """As where all is learned by heart: what is left of momenta is no direction."""
    rule = trained(momenta=((0.9, 0.99),), **options)
    given = np.zeros((700, 54), "float32")
    given[:10] = gradients(steps=10, shapes=[(6, 5), (2, 3, 4)])
    updates, _ = trajectory(rule, given, Tensors([(6, 5), (2, 3, 4)]))
    assert np.abs(updates[9]).max() > 1e-4
    assert np.abs(updates[-1]).max() < 1e-12


class TestAtFirst:
    def test_it_is_adam_with_a_small_rate_that_the_state_tells(self):
        """Without anything learned: the output weights are zero."""
        rule = constant(
            TensorwiseLSTM(
                4, momenta=((0.9, 0.999),), largest_step=None, fan_in_exponent=0.0, seed=0
            )
        )
        given = gradients()
        updates, state = trajectory(rule, given, Tensors(SHAPES))
        m = v = 0.0
        for t, g in enumerate(given, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            adam = (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
            rate = ops.convert_to_numpy(rule.diagnose(state[-1])["step size"])
            assert rate == pytest.approx(3e-3 * np.exp(-1), rel=1e-5)
            np.testing.assert_allclose(updates[t - 1], -rate * adam, rtol=2e-4, atol=1e-8)

    def test_the_nominal_part_can_be_left_out(self):
        rule = constant(TensorwiseLSTM(4, nominal=0.0, seed=0))
        updates, _ = trajectory(rule, gradients(), Tensors(SHAPES))
        assert np.all(updates == 0.0)


class TestInvariance:
    @pytest.mark.parametrize("factor", [1e-6, 1e6])
    def test_the_scale_of_the_loss_does_not_matter(self, factor):
        rule, given = trained(), gradients()
        expected, _ = trajectory(rule, given, Tensors(SHAPES))
        scaled, _ = trajectory(rule, np.float32(factor) * given, Tensors(SHAPES))
        np.testing.assert_allclose(scaled, expected, rtol=1e-3, atol=1e-6)
        assert np.abs(expected).max() > 1e-5

    def test_the_order_of_tensors_does_not_matter(self):
        rule, given = trained(), gradients()
        parts = np.split(given, np.cumsum([30, 5])[:2], axis=1)
        expected, _ = trajectory(rule, given, Tensors(SHAPES))
        actual, _ = trajectory(rule, np.concatenate(parts[::-1], axis=1), Tensors(SHAPES[::-1]))
        swapped = np.concatenate(np.split(actual, [48, 53], axis=1)[::-1], axis=1)
        np.testing.assert_allclose(swapped, expected, rtol=1e-4, atol=1e-7)

    def test_the_order_of_coordinates_does_not_matter(self):
        rule, given = trained(), gradients()
        order = np.concatenate([np.random.default_rng(2).permutation(30), np.arange(30, 83)])
        expected, _ = trajectory(rule, given, Tensors(SHAPES))
        actual, _ = trajectory(rule, given[:, order], Tensors(SHAPES))
        np.testing.assert_allclose(actual, expected[:, order], rtol=1e-3, atol=1e-6)


class TestTensors:
    def test_they_learn_of_each_other(self):
        """Through the mean of their hidden states, from the second step on."""
        rule, given = trained(), gradients()
        other = given.copy()
        other[:, 35:] = 0.1
        first, _ = trajectory(rule, given, Tensors(SHAPES))
        second, _ = trajectory(rule, other, Tensors(SHAPES))
        np.testing.assert_allclose(second[0, :35], first[0, :35], rtol=1e-5)
        assert np.abs(second[-1, :35] / first[-1, :35] - 1.0).max() > 1e-4

    def test_each_has_a_rate_of_its_own(self):
        rule = trained()
        _, state = trajectory(rule, gradients(), Tensors(SHAPES))
        rates = ops.convert_to_numpy(state[-1])[2 * rule.units]
        assert len(set(rates.tolist())) == len(SHAPES)

    @pytest.mark.parametrize("largest_rise", [0.2, 0.7])
    def test_a_rate_rises_slowly_and_stays_in_its_bounds(self, largest_rise):
        rule = TensorwiseLSTM(4, largest_rise=largest_rise, seed=0)
        for wish, bound in ((50.0, 3.0), (-50.0, -4.0)):
            constant(rule, lambda bias, wish=wish: np.full_like(bias, wish))
            state = rule.initial_state(83, 3)
            rates = [0.0]
            for gradient in gradients(steps=60):
                _, state = rule.step(ops.array(gradient), state, None, Tensors(SHAPES))
                rates.append(float(ops.convert_to_numpy(state[-1])[2 * rule.units, 0]))
            steps = rule.step_size(ops.array(rates, "float32"), 0.0)
            rises = np.diff(np.log(ops.convert_to_numpy(steps)))
            assert rises.max() <= largest_rise + 1e-5
            assert wish < 0.0 or rises.max() > 0.9 * largest_rise
            assert np.diff(rates).min() >= -1.0 - 1e-6
            assert rates[-1] == pytest.approx(bound + 0.5)


class TestOptions:
    def test_the_update_can_be_normalised(self):
        rule = trained(normalize_update=True, fan_in_exponent=0.0)
        updates, state = trajectory(rule, gradients(), Tensors(SHAPES))
        rate = ops.convert_to_numpy(rule.diagnose(state[-1])["step size"])
        assert np.sqrt(np.mean(updates[-1, :30] ** 2)) == pytest.approx(rate, rel=1e-3)

    def test_the_rate_can_be_relative_to_the_parameters(self):
        """Of size 0.1, they leave the rate as it is."""
        parameters = np.full(83, 0.1, "float32")
        plain, _ = trajectory(trained(), gradients(1), Tensors(SHAPES), parameters)
        relative, _ = trajectory(
            trained(relative_scale=True), gradients(1), Tensors(SHAPES), parameters
        )
        np.testing.assert_allclose(relative, plain, rtol=1e-4)
        zero, _ = trajectory(trained(relative_scale=True), gradients(1), Tensors(SHAPES))
        small = np.full(83, 0.01, "float32")
        floor, _ = trajectory(trained(relative_scale=True), gradients(1), Tensors(SHAPES), small)
        assert np.abs(floor).max() < 0.2 * np.abs(relative).max()
        assert np.abs(zero).max() > 0.0

    @pytest.mark.parametrize(
        ("size", "arguments", "largest"),
        [
            (0.0, {}, 0.25 * 0.05),
            (1.0, {}, 0.25 * 1.05),
            (1.0, {"largest_step": 0.06, "size_offset": 0.4}, 0.06 * 1.4),
        ],
    )
    def test_steps_are_limited_relative_to_the_parameters(self, size, arguments, largest):
        parameters = np.full(83, size, "float32")
        arguments = {"nominal": 1e4, "fan_in_exponent": 0.0, **arguments}
        limited, _ = trajectory(trained(**arguments), gradients(1), Tensors(SHAPES), parameters)
        step = np.sqrt(np.mean(limited[0, :30] ** 2))
        assert 0.95 < step / largest < 1.0
        free, _ = trajectory(
            trained(**{**arguments, "largest_step": None}),
            gradients(1),
            Tensors(SHAPES),
            parameters,
        )
        assert np.sqrt(np.mean(free[0, :30] ** 2)) > 5.0

    @pytest.mark.parametrize("limited", [False, True])
    def test_kernels_of_many_inputs_move_less(self, limited):
        """Those of 192 inputs half as far as those of one, twice as far as those of 960."""
        shapes = [(8,), (192, 4), (24, 8, 5, 4)]
        given = gradients(1, shapes=shapes)
        sizes = {}
        for exponent in (0.0, 0.5):
            rule = constant(
                TensorwiseLSTM(
                    4, largest_step=1e-6 if limited else None, fan_in_exponent=exponent, seed=0
                )
            )
            update = trajectory(rule, given, Tensors(shapes))[0][0]
            parts = np.split(update, [8, 8 + 192 * 4])
            sizes[exponent] = np.array([np.sqrt(np.mean(part**2)) for part in parts])
        narrowness = np.array([(65 / 64) ** -0.5, 0.5, 0.25])
        # The limit is a part of what is added to parameters of no size, and both fall.
        expected = narrowness**2 if limited else narrowness
        np.testing.assert_allclose(sizes[0.5] / sizes[0.0], expected, rtol=1e-3)

    def test_embeddings_move_as_if_they_had_one_input(self):
        given = gradients(1, shapes=[(192, 4)])
        sizes = [
            np.linalg.norm(
                trajectory(
                    constant(TensorwiseLSTM(4, largest_step=None, seed=0)),
                    given,
                    Tensors([(192, 4)], fan_ins),
                )[0][0]
            )
            for fan_ins in ([1], None)
        ]
        np.testing.assert_allclose(sizes[0] / sizes[1], 2.0 * (65 / 64) ** -0.5, rtol=1e-4)

    def test_kernels_of_many_inputs_in_use_move_still_less(self):
        """Of the second kernel's 400 inputs, a minibatch has 25: words of a bag, say."""
        shapes = [(400, 4), (400, 5), (10, 3), (7,)]
        given = gradients(1, shapes=shapes)
        words = given[0, 1600:3600].reshape(400, 5)
        words[np.arange(400) % 16 != 3] = 0.0
        plain, many = (
            trajectory(
                constant(TensorwiseLSTM(4, largest_step=None, wide_fan_in=wide, seed=0)),
                given,
                Tensors(shapes),
            )[0][0]
            for wide in (None, 100.0)
        )
        moved = plain != 0.0
        in_use = np.repeat([400.0, 25.0, 10.0, 1.0], [1600, 2000, 30, 7])
        expected = (1.0 + (in_use / 100.0) ** 2) ** -0.25
        np.testing.assert_allclose(many[moved] / plain[moved], expected[moved], rtol=1e-4)
        assert moved.sum() == 1600 + 125 + 30 + 7

    def without_and_with_size_exponent(self, tensors, parameters, steps=2):
        return [
            trajectory(
                constant(TensorwiseLSTM(4, largest_step=None, size_exponent=exponent, seed=0)),
                gradients(steps, shapes=tensors.shapes),
                tensors,
                parameters,
            )[0]
            for exponent in (0.0, 0.5)
        ]

    def test_kernels_that_are_smaller_than_others_move_less(self):
        """Not those that begin as zeros, even when they have grown; nor biases nor embeddings."""
        shapes = [(96, 4), (28, 4), (3, 3, 4, 5), (46, 4), (30, 4), (7,)]
        tensors = Tensors(shapes, [96, 28, 36, 46, 1, 1])
        counts = [384, 112, 180, 184, 120, 7]
        # To the usual sizes: 1/8, 2, 1/2, nothing, and what does not count.
        usual = np.sqrt(2.0 / np.array([96 + 4, 28 + 4, 36 + 45, 46 + 4, 1, 1]))
        sizes = usual * [0.125, 2.0, 0.5, 0.0, 1e-3, 1e-3]
        parameters = np.repeat(sizes, counts).astype("float32")
        plain, less = self.without_and_with_size_exponent(tensors, parameters)
        expected = np.repeat([0.5, 1.0, 1.0, 1.0, 1.0, 1.0], counts)
        np.testing.assert_allclose(less[0], expected * plain[0], rtol=1e-4)
        # The smallest has changed a little since, and what was zero is not any more.
        np.testing.assert_allclose(less[1], expected * plain[1], rtol=0.02)
        assert 1e-3 < np.sqrt(np.mean(less[0][676:860] ** 2)) / usual[3] < 0.1

    def test_layers_that_are_all_small_move_as_they_did(self):
        shapes = [(96, 4), (28, 4)]
        sizes = np.repeat([0.01 * 0.02**0.5, 0.01 * 0.0625**0.5], [384, 112]).astype("float32")
        plain, same = self.without_and_with_size_exponent(Tensors(shapes), sizes, steps=1)
        np.testing.assert_allclose(same, plain, rtol=1e-5)

    def test_weight_decay_pulls_towards_zero(self):
        rule = trained(weight_decay=0.5)
        nothing = np.zeros((1, 83), "float32")
        updates, _ = trajectory(rule, nothing, Tensors(SHAPES), np.full(83, 2.0, "float32"))
        assert np.all(updates < 0.0)
        without, _ = trajectory(trained(), nothing, Tensors(SHAPES), np.full(83, 2.0, "float32"))
        assert np.all(without == 0.0)

    def test_rates_fall_with_the_steps_of_each_tensor(self):
        """Of a rule that has learned nothing, which would go on at the same rate."""

        def updates(**arguments):
            rule = constant(TensorwiseLSTM(4, largest_step=None, seed=0, **arguments))
            updates, state = trajectory(rule, gradients(steps=9), Tensors(SHAPES))
            return updates, float(rule.diagnose(state[-1])["step size"])

        falling, told = updates(decay_exponent=0.5, decay_steps=3.0)
        plain, told_plain = updates()
        factors = (1.0 + np.arange(1, 10) / 3.0) ** -0.5
        np.testing.assert_allclose(falling, factors[:, None] * plain, rtol=2e-4, atol=1e-8)
        assert told == pytest.approx(0.5 * told_plain, rel=1e-4)


class TestOrthogonalFactors:
    @staticmethod
    def updates(given, shapes=SHAPES):
        """Updates by the orthogonal factor of the first momentum alone, over the rate."""
        rule = TensorwiseLSTM(4, ((0.9, 0.99),), orthogonal=(0,), nominal=0.0, seed=0)
        constant(rule, lambda bias: np.eye(len(bias), dtype="float32")[0])
        updates, state = trajectory(rule, given, Tensors(shapes))
        return -updates / ops.convert_to_numpy(rule.diagnose(state[-1])["step size"])

    def test_one_is_a_direction(self):
        matrix = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
        update = self.updates(matrix.reshape(1, -1), [(6, 5)]).reshape(6, 5) / np.sqrt(6)
        values = np.linalg.svd(update, compute_uv=False)
        assert values.min() > 0.6
        assert values.max() < 1.3

    def test_it_vanishes_where_there_are_no_more_gradients(self):
        """What is left of a momentum is no direction, however small it gets."""
        given = gradients(steps=150)
        given[10:, :30] = 0.0
        updates = self.updates(given)
        assert np.isfinite(updates).all()
        size = np.abs(updates[:, :30]).max(axis=1)
        assert size[9] > 0.5
        assert size[-1] < 1e-3
        assert np.abs(updates[-1, 30:]).max() > 0.5


class TestWhitenedRows:
    @pytest.mark.parametrize(
        ("half_whitened_rows", "degrees"),
        [(32.0, (36 / 1060, 0.0, 0.5)), (6.0, (0.5, 0.0, 1024 / 1060))],
    )
    def test_updates_of_matrices_are_whitened_the_more_the_more_rows_they_have(
        self, half_whitened_rows, degrees
    ):
        """What the LSTM sees, and with it the state, does not depend on it."""
        shapes = [(6, 5), (5,), (4, 4, 2, 4)]
        given, tensors = gradients(shapes=shapes), Tensors(shapes)
        plain, rule = trained(), trained(whitened_rows=4, half_whitened_rows=half_whitened_rows)
        state = rule.initial_state(given.shape[1], 3)
        for gradient in given:
            sums, expected_state = plain.step(ops.array(gradient), state, None, tensors)
            update, state = rule.step(ops.array(gradient), state, None, tensors)
            for a, b in zip(state, expected_state, strict=True):
                np.testing.assert_array_equal(*map(ops.convert_to_numpy, (a, b)))
            cut = zip(tensors.cut(sums), tensors.cut(update), shapes, degrees, strict=True)
            for before, after, shape, degree in cut:
                change = whiten_rows(before, shape, 4) - before
                np.testing.assert_allclose(after - before, degree * change, rtol=1e-3, atol=1e-6)
                assert len(shape) < 2 or ops.max(ops.abs(change / before)) > 0.1

    def test_what_sets_rows_apart_is_learned_as_fast_as_what_they_share(self):
        """Rows of a regression whose inputs are nearly the same."""
        random = np.random.default_rng(0)
        inputs = random.normal(size=(256, 1)) + 0.2 * random.normal(size=(256, 64))
        target = 0.02 * random.normal(size=(64, 6))

        def loss(**options):
            rule = constant(TensorwiseLSTM(4, seed=0, **options))
            state, theta = rule.initial_state(target.size), np.zeros(target.shape)
            for _ in range(100):
                gradient = inputs.T @ (inputs @ (theta - target)) / len(inputs)
                vectors = [ops.array(x.ravel(), "float32") for x in (gradient, theta)]
                update, state = rule.step(vectors[0], state, vectors[1], Tensors([target.shape]))
                theta = theta + ops.convert_to_numpy(update).reshape(target.shape)
            return np.mean((inputs @ (theta - target)) ** 2)

        assert loss(whitened_rows=16) < 0.75 * loss()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momenta": ()}, "`momenta` must be pairs"),
        ({"momenta": ((0.9,),)}, "`momenta` must be pairs"),
        ({"momenta": ((0.999, 0.99),)}, "`momenta` must be pairs.*the first at most the root"),
        ({"momenta": ((1.0, 0.999),)}, "`momenta` must be pairs"),
        ({"whitened_rows": -1}, "`whitened_rows` must be an integer, 0 or more. Received: -1"),
        ({"whitened_rows": 0.5}, "`whitened_rows` must be an integer, 0 or more. Received: 0.5"),
        ({"whitened_rows": np.inf}, "`whitened_rows` must be an integer, 0 or more. Received: inf"),
        ({"half_whitened_rows": 0.0}, "`half_whitened_rows` must be positive. Received: 0.0"),
        (
            {"whitened_rows": 8, "weight_decay": 0.1},
            "With `whitened_rows`, `weight_decay` must be 0.*whitened_rows=8, weight_decay=0.1",
        ),
        ({"weight_decay": -0.1}, "`weight_decay` must not be negative. Received: -0.1"),
        ({"largest_step": 0.0}, "`largest_step` must be positive or None. Received: 0.0"),
        ({"size_offset": 0.0}, "`size_offset` must be positive. Received: 0.0"),
        ({"largest_rise": 0.0}, "`largest_rise` must be positive. Received: 0.0"),
        (
            {"fan_in_exponent": -0.5},
            "`fan_in_exponent` must not be negative. Received: -0.5",
        ),
        ({"wide_fan_in": 0.0}, "`wide_fan_in` must be positive or None. Received: 0.0"),
        ({"size_exponent": -0.5}, "`size_exponent` must not be negative. Received: -0.5"),
        ({"decay_exponent": -0.5}, "`decay_exponent` must not be negative. Received: -0.5"),
        ({"decay_steps": 0.0}, "`decay_steps` must be positive. Received: 0.0"),
        ({"orthogonal": (3,)}, "`orthogonal` must be places of the 3 momenta. Received"),
        ({"units": 0}, "`units` must be .*positive integers"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TensorwiseLSTM(**arguments)


def test_zero_gradients_have_finite_derivatives():
    rule = trained()
    state = rule.initial_state(83, 3)
    gradient = tf.zeros(83)
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        update, new_state = rule.step(gradient, state, tf.zeros(83), Tensors(SHAPES))
        value = tf.reduce_sum(tf.abs(update)) + sum(tf.reduce_sum(part) for part in new_state)
    derivatives = tape.gradient(value, [gradient, *rule.trainable_variables])
    for derivative in derivatives:
        assert np.isfinite(derivative).all()


@pytest.mark.parametrize(
    "options", [{"weight_decay": 0.1}, {"whitened_rows": 8, "half_whitened_rows": 20.0}]
)
def test_a_configuration_makes_the_same_rule(options):
    arguments = {
        "units": 5,
        "momenta": [[0.8, 0.9]],
        "orthogonal": [0],
        "nominal": 0.5,
        "normalize_update": True,
        "relative_scale": True,
        "largest_step": 0.7,
        "size_offset": 0.3,
        "largest_rise": 0.4,
        "fan_in_exponent": 0.6,
        "wide_fan_in": 9.0,
        "size_exponent": 0.4,
        "decay_exponent": 0.2,
        "decay_steps": 5.0,
        "seed": 3,
        "name": "rule",
        **options,
    }
    rule = TensorwiseLSTM(**arguments)
    assert arguments.items() <= rule.get_config().items()
    again = TensorwiseLSTM.from_config(rule.get_config())
    assert again.get_config() == rule.get_config()
    for a, b in zip(again.get_weights(), rule.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
