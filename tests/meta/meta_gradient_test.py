"""Tests of meta-gradients: against a plain tape, and against differences in NumPy."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.meta import META_LOSSES, STEP_WEIGHTS, InnerLoop
from l2l_keras.meta.second_order import clip
from l2l_keras.rules import NTMBFGS, CoordinatewiseLSTM, GlobalAveragingLSTM, MomentumLSTM, RNNprop
from tests.meta.problems import (
    CHUNKS,
    COUPLED,
    RULES,
    Momentum,
    a_meta_loss,
    a_rate,
    a_scale,
    assert_as_by_tape,
    assert_close,
    assert_meta_gradient,
    constrained_network,
    meta_gradient,
    network,
    quadratic,
    randomize,
    start,
    steps_of,
    without_signal,
)

both_orders = pytest.mark.parametrize("second", [False, True], ids=["first", "second"])


def in_chunks(rule, task, chunks):
    """An inner loop, and the memory that its meta-gradients may take."""
    settings = CHUNKS[chunks]
    return InnerLoop(rule, task, settings["chunk_size"]), settings["cache_bytes"]


class TestExactness:
    """The meta-gradient, computed without a tape over the window, is that of such a tape."""

    @pytest.mark.parametrize(
        ("rule", "chunks"), [("lstm", "mixed"), ("rnnprop", "recomputed"), ("momentum", "cached")]
    )
    def test_compiled(self, rule, chunks):
        loop, cache_bytes = in_chunks(RULES[rule](), quadratic(), chunks)
        initial, inner = start(loop)
        for name, scale in (("log_relative", None), ("mean", a_scale(loop.task))):
            meta_loss = a_meta_loss(name, unroll=3, initial=initial)
            assert_as_by_tape(loop, inner, steps_of(loop, 3, scale), meta_loss, cache_bytes)

    @pytest.mark.parametrize(
        ("rule", "chunks", "task"),
        [
            ("lstm", "whole", quadratic),
            ("momentum_lstm", "mixed", quadratic),
            ("momentum", "recomputed", quadratic),
            # Not rules that divide gradients by their RMS: a bias before batch normalization has a
            # gradient of rounding errors only.
            ("lstm_plain", "mixed", network),
            ("momentum", "mixed", network),
            ("momentum", "whole", constrained_network),
        ],
    )
    def test_eager(self, rule, chunks, task, eagerly):
        loop, cache_bytes = in_chunks(RULES[rule](), task(), chunks)
        initial, inner = start(loop)
        meta_loss = a_meta_loss("log", unroll=3, initial=initial)
        for held_out in {False, loop.task.holds_out}:
            steps = steps_of(loop, 3, a_scale(loop.task), held_out=held_out, rate=a_rate)
            assert_as_by_tape(loop, inner, steps, meta_loss, cache_bytes)

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(st.data())
    def test_whatever_the_arguments(self, data):
        make = data.draw(
            st.sampled_from(
                [
                    lambda units, seed: randomize(CoordinatewiseLSTM(units, "none"), seed),
                    lambda units, seed: randomize(CoordinatewiseLSTM(units), seed),
                    lambda units, seed: randomize(RNNprop(units), seed),
                    lambda units, seed: randomize(MomentumLSTM(units, rate=0.02), seed),
                    lambda units, seed: Momentum(),
                ]
            ),
            "rule",
        )
        rule = make(
            data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2), "units"),
            data.draw(st.integers(0, 1000), "seed"),
        )
        task = quadratic(
            data.draw(st.integers(1, 4), "dimension"), data.draw(st.integers(1, 4), "functions")
        )
        loop = InnerLoop(rule, task, chunk_size=data.draw(st.integers(1, 20), "chunk_size"))
        unroll = data.draw(st.integers(1, 4), "unroll")
        name = data.draw(st.sampled_from(sorted(META_LOSSES)), "meta_loss")
        weights = data.draw(st.sampled_from(sorted(STEP_WEIGHTS)), "step_weights")
        scale = a_scale(task) if data.draw(st.booleans(), "scaled") else None
        rate = data.draw(st.sampled_from([None, a_rate]), "rate")
        cache_bytes = data.draw(st.sampled_from([0, 500, 5000, 2**27]), "cache_bytes")
        tf.config.run_functions_eagerly(True)
        try:
            initial, inner = start(loop, steps=data.draw(st.integers(0, 2), "steps before"))
            meta_loss = a_meta_loss(name, weights, unroll, initial)
            steps = steps_of(loop, unroll, scale, rate=rate)
            assert_as_by_tape(loop, inner, steps, meta_loss, cache_bytes)
        finally:
            tf.config.run_functions_eagerly(False)


@pytest.fixture(name="coupled", scope="module", params=COUPLED)
def coupled_fixture(request):
    """A compiled loop: vectorized functions take longer to run eagerly than to compile."""
    # A chunk size that would cut functions apart.
    return InnerLoop(COUPLED[request.param](), quadratic(), chunk_size=5)


class TestCoupledRules:
    """Rules of scope "model" and "tensor", on several functions side by side."""

    def test_their_meta_gradients_are_those_of_a_tape(self, coupled):
        initial, inner = start(coupled)
        # A memory divides by changes of gradients, and so by differences of rounded numbers.
        tolerance = 1e-3 if isinstance(coupled.rules[0], NTMBFGS) else 1e-5
        meta_loss = a_meta_loss("log", unroll=2, initial=initial)
        steps = steps_of(coupled, 2, a_scale(coupled.task), rate=a_rate)
        # Computed again, as far as possible.
        assert_as_by_tape(coupled, inner, steps, meta_loss, cache_bytes=0, tolerance=tolerance)

    def test_functions_exchange_nothing(self, coupled):
        assert coupled.partition.owners == [0]
        assert coupled.partition.shapes == [(4, 3)]
        parameters, (w, y) = coupled.task.sample("train", 0)
        other = tf.tensor_scatter_nd_add(y, [[0, 0]], [3.0])

        def meta_loss(losses):
            return tf.reduce_mean(tf.math.log(losses[:, 1:]))

        results = []
        for target in (y, other):
            _, inner = coupled.start(parameters, (w, target), ())
            results.append(meta_gradient(coupled, inner, steps_of(coupled, 3), meta_loss))
        (value, expected, expected_end), (other_value, actual, end) = results
        assert value == other_value
        np.testing.assert_array_equal(end.parameters[3:], expected_end.parameters[3:])
        for part, expected_part in zip(end.rule_state[0], expected_end.rule_state[0], strict=True):
            np.testing.assert_array_equal(part[1:], expected_part[1:])
            assert np.any(part[0] != expected_part[0])
        assert_meta_gradient(actual, expected)
        assert np.all(end.parameters[:3] != expected_end.parameters[:3])

    @both_orders
    def test_zero_gradients_have_finite_meta_gradients(self, coupled, second):
        _, inner = coupled.start(*without_signal(coupled.task), ())
        meta_loss = a_meta_loss("log", unroll=3)
        value, derivative, end = meta_gradient(
            coupled, inner, steps_of(coupled, 3), meta_loss, second_derivatives=second
        )
        for part in (value, *derivative, *tf.nest.flatten(end)):
            assert np.isfinite(part).all()
        assert max(np.abs(part).max() for part in derivative) > 0


class TestGroups:
    """Rules of their own for some of an optimizee's weights, which are not adjacent."""

    @pytest.mark.parametrize("chunks", ["cached", "mixed"])
    def test_their_meta_gradients_are_those_of_a_tape(self, chunks, eagerly):
        groups = {"kernel": RULES["lstm_plain"](), "bias|gamma": Momentum(), ".*": Momentum(-2.0)}
        loop, cache_bytes = in_chunks(groups, network(), chunks)
        assert loop.rules == list(groups.values())
        _, inner = start(loop)
        steps = steps_of(loop, 3, a_scale(loop.task))
        assert_as_by_tape(loop, inner, steps, a_meta_loss(unroll=3), cache_bytes)

    def test_one_may_have_a_rule_over_all_its_weights(self):
        rule = randomize(GlobalAveragingLSTM((3,), 1, "none"), 5)
        loop = InnerLoop({"kernel": rule, ".*": Momentum()}, network(), chunk_size=3)
        # Two kernels, of six weights and of two; and seven other weights.
        assert loop.partition.shapes == [(8,), (3,), (3,), (3,)]
        _, inner = start(loop)
        assert_as_by_tape(loop, inner, steps_of(loop, 3), a_meta_loss(unroll=3))

    def test_groups_of_one_rule_are_that_rule(self, eagerly):
        task = network()
        whole = InnerLoop(RULES["lstm_plain"](), task)
        groups = InnerLoop({key: RULES["lstm_plain"]() for key in ("bias", "gamma", ".*")}, task)
        for second in (False, True):
            (value, expected, end), (group_value, parts, group_end) = (
                meta_gradient(
                    loop,
                    start(loop)[1],
                    steps_of(loop, 3, a_scale(task)),
                    a_meta_loss(unroll=3),
                    second_derivatives=second,
                )
                for loop in (whole, groups)
            )
            assert_close(group_value, value)
            assert_close(group_end.parameters, end.parameters)
            # φ of the whole is that of every group at once.
            actual = [tf.add_n(parts[k :: len(expected)]) for k in range(len(expected))]
            assert_meta_gradient(actual, expected, tolerance=1e-4)

    def test_one_group_may_have_several_functions(self, eagerly):
        loop = InnerLoop({"parameters": Momentum()}, quadratic(), chunk_size=5)
        _, inner = start(loop)
        assert_as_by_tape(loop, inner, steps_of(loop, 3), a_meta_loss(unroll=3))


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_a_derivative_that_overflows_is_replaced_by_the_first_order_one(value):
    first_order = tf.constant([3.0, 4.0])
    derivative, rest = clip(first_order, tf.constant([value, 1.0]), [tf.constant([np.inf, 1.0])])
    np.testing.assert_array_equal(derivative, first_order)
    np.testing.assert_array_equal(rest[0], [0.0, 0.0])


def numpy_window(phi, task_state, theta, momentum, steps, gradients=None):
    """A window of `Momentum` on quadratics in float64: its losses `[steps, functions]`.

    With `gradients`, these are used instead of those at the parameters that are reached. Returns
    the gradients that the rule saw, too.
    """
    w, y = task_state
    log_rate, decay = phi
    losses, used = [], []
    for t in range(steps):
        residuals = np.einsum("kij,kj->ki", w, theta) - y
        gradient = 2 * np.einsum("kij,ki->kj", w, residuals) if gradients is None else gradients[t]
        used.append(gradient)
        momentum = momentum / (1 + np.exp(-decay)) + gradient
        theta = theta - np.exp(log_rate) * momentum
        losses.append((np.einsum("kij,kj->ki", w, theta) - y) ** 2)
    return np.sum(losses, axis=2), used


def differences(function, phi, epsilon=1e-5):
    """The gradient of a function of a float64 vector, by central differences."""
    steps = epsilon * np.eye(len(phi))
    return np.array([(function(phi + e) - function(phi - e)) / (2 * epsilon) for e in steps])


class TestDifferences:
    """Meta-gradients against differences of the meta-loss, computed in NumPy."""

    STEPS = 6

    @both_orders
    def test_they_are_derivatives_of_the_meta_loss(self, second, eagerly):
        """First-order ones with the optimizee's gradients given, second-order ones in whole."""
        loop = InnerLoop(Momentum(), quadratic(), chunk_size=5)
        _, inner = start(loop)
        steps, meta_loss = steps_of(loop, self.STEPS), a_meta_loss(unroll=self.STEPS)
        value, derivative, _ = meta_gradient(
            loop, inner, steps, meta_loss, second_derivatives=second
        )
        momentum = tf.concat([chunk[0][0] for chunk in inner.rule_state], 0)[: loop.task.size]
        window = functools.partial(
            numpy_window,
            task_state=[part.numpy().astype("float64") for part in inner.task_state],
            theta=inner.parameters.numpy().astype("float64").reshape(4, 3),
            momentum=momentum.numpy().astype("float64").reshape(4, 3),
            steps=self.STEPS,
        )

        def numpy_meta_loss(phi, gradients=None):
            losses, _ = window(phi, gradients=gradients)
            progress = np.arange(1, self.STEPS + 1) / self.STEPS
            return np.mean(2 * progress * losses.mean(axis=1))

        phi = np.array([-3.0, 0.5])
        assert float(value) == pytest.approx(numpy_meta_loss(phi), rel=1e-5)
        whole = differences(numpy_meta_loss, phi)
        given = differences(functools.partial(numpy_meta_loss, gradients=window(phi)[1]), phi)
        expected = whole if second else given
        np.testing.assert_allclose([float(d) for d in derivative[:2]], expected, rtol=1e-4)
        assert np.abs(given - whole).max() > 0.1 * np.abs(whole).max()

    @staticmethod
    def norms(rate):
        """Norms of whole, clipped and first-order meta-gradients of gradient descent."""
        loop = InnerLoop(Momentum(np.log(rate), -20.0), quadratic())
        _, inner = start(loop, steps=0)
        window = (loop, inner, steps_of(loop, 20), a_meta_loss(unroll=20))
        return [
            float(tf.linalg.global_norm(meta_gradient(*window, **settings)[1]))
            for settings in (
                {"second_derivatives": True},
                {"second_derivatives": True, "clip_through_time": True},
                {},
            )
        ]

    def test_clipping_through_time_is_for_large_steps(self, eagerly):
        # If steps contract, the whole derivative is the smaller one.
        whole, clipped, first_order = self.norms(rate=0.01)
        assert clipped == pytest.approx(whole, rel=1e-5)
        assert whole < first_order
        # If they diverge, it grows with every step that it goes back.
        whole, clipped, first_order = self.norms(rate=0.15)
        assert whole > 10.0 * first_order
        assert first_order < clipped < 3.0 * first_order


class TestZeroGradients:
    @pytest.mark.parametrize("rule", RULES)
    def test_they_have_finite_meta_gradients(self, rule, eagerly):
        """All gradients of the first function are zero, as those of dead units are."""
        loop = InnerLoop(RULES[rule](), quadratic(), chunk_size=5)
        initial, inner = loop.start(*without_signal(loop.task), ())
        assert not np.any(inner.gradient[:3])
        names = sorted(META_LOSSES)
        for name, second in [(names[0], True), *((name, False) for name in names)]:
            meta_loss = a_meta_loss(name, unroll=3, initial=initial)
            value, derivative, end = meta_gradient(
                loop, inner, steps_of(loop, 3), meta_loss, second_derivatives=second
            )
            assert np.isfinite(value)
            for part in (*derivative, *tf.nest.flatten(end)):
                assert np.isfinite(part).all()
            assert max(np.abs(part).max() for part in derivative) > 0

    @pytest.mark.parametrize("size", [0.0, 1e-18, 1e-25, 1e-38])
    @pytest.mark.parametrize("rule", RULES | COUPLED)
    def test_steps_have_finite_derivatives(self, rule, size):
        """As second derivatives need them, at zero and next to it."""
        rule = (RULES | COUPLED)[rule]()
        gradient = tf.fill((3,), size)
        with tf.GradientTape() as tape:
            tape.watch(gradient)
            state = rule.initial_state(3)
            for _ in range(2):
                update, state = rule.step(gradient, state)
        derivatives = tape.gradient(
            update,
            [gradient, *(w.value for w in rule.weights)],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        assert all(np.isfinite(part).all() for part in derivatives)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
