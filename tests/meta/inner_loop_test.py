"""Tests of meta-gradients: against a plain tape, and against differences in NumPy."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from l2l_keras import LearnedOptimizer
from l2l_keras.meta import META_LOSSES, STEP_WEIGHTS, InnerLoop
from l2l_keras.meta.inner_loop import Inner, _clip
from l2l_keras.meta.meta_loss import window_loss
from l2l_keras.rules import (
    NTMBFGS,
    CoordinatewiseLSTM,
    GlobalAveragingLSTM,
    MomentumLSTM,
    RNNprop,
    SplitRule,
    Tensors,
    TensorwiseLSTM,
    TensorwiseRule,
    UpdateRule,
)
from l2l_keras.tasks import KerasTask, Quadratic

LARGE = 2**27


class Momentum(UpdateRule):
    """Momentum with a learned rate and decay, and without a derivative of its own."""

    def __init__(self, log_rate=-3.0, decay=0.5, name=None):
        super().__init__(name=name)
        constant = keras.initializers.Constant
        self.log_rate = self.add_weight(shape=(), initializer=constant(log_rate), name="log_rate")
        self.decay = self.add_weight(shape=(), initializer=constant(decay), name="decay")
        self.unused = self.add_weight(shape=(2,), initializer="ones", name="unused")
        self.built = True

    @property
    def state_rows(self):
        return (1,)

    def step(self, gradient, state):
        momentum = ops.sigmoid(self.decay) * state[0] + gradient[None]
        return -ops.exp(self.log_rate) * momentum[0], (momentum,)

    def get_config(self):
        return {"name": self.name}


def numpy_window(phi, task_state, theta, momentum, steps, gradients=None):
    """A window of `Momentum` on quadratics in float64: its losses `[steps, functions]`.

    With `gradients`, these are used instead of those at the parameters that are reached. Returns
    the gradients at the beginning of every step, too.
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


def randomize(rule, seed, scale=0.5):
    """Gives every weight a value of its own, zero biases included."""
    random = np.random.default_rng(seed)
    rule.set_weights(
        [(scale * random.normal(size=w.shape)).astype("float32") for w in rule.weights]
    )
    return rule


def quadratic(dimension=3, functions=4):
    return Quadratic(dimension, functions, initial_scale=0.5)


def network():
    """A task of one function with data, batch normalisation and dropout."""

    def model_fn():
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(2),
                keras.layers.BatchNormalization(),
                keras.layers.Activation("tanh"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(1),
            ]
        )

    random = np.random.default_rng(0)
    x = random.normal(size=(50, 3)).astype("float32")
    y = np.sin(x.sum(axis=1, keepdims=True)).astype("float32")
    return KerasTask(model_fn, "mean_squared_error", (x, y), batch_size=8)


def drawing(task, first=0):
    """Draws the minibatches of a window that starts at some step."""
    return lambda t: task.batch("train", tf.stack([7, first + t]))


def start(loop, seed=0, steps=2):
    """An inner loop that has taken a few steps: its states are no longer zero."""
    optimizee = loop.task.sample("train", seed)
    draw = drawing(loop.task, 100)
    initial, inner = loop.start(*optimizee, draw(0))
    for t in range(steps):
        _, inner = loop.step(inner, draw(1 + t))
    return initial, inner


def step_of_problems(rule, task, gradient, state, parameters):
    """A rule's step; a coupled rule's, problem by problem."""
    more = ()
    if isinstance(rule, TensorwiseRule):
        one = task.functions == 1
        more = (
            parameters,
            Tensors([w.shape for w in task.layout] if one else [(task.size // task.functions,)]),
        )
    if not rule.coupled or task.functions == 1:
        return rule.step(gradient, state, *more)
    results = []
    for k in range(task.functions):
        own = (parameters[k], *more[1:]) if more else ()
        results.append(rule.step(gradient[k], tuple(part[k] for part in state), *own))
    return tf.nest.map_structure(lambda *parts: tf.stack(parts), *results)


def by_tape(loop, inner, draw, unroll, meta_loss, scale=None, second_derivatives=False):
    """What `InnerLoop.meta_gradient` computes, the plain way: one tape over everything."""
    weights = [v.value for rule in loop.rules for v in rule.trainable_variables]
    parameters, gradient, rule_state, task_state = inner
    losses = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        for t in range(unroll):
            if not second_derivatives:
                gradient = tf.stop_gradient(gradient)
            scaled = gradient if scale is None else scale * gradient
            positions = parameters if scale is None else parameters / scale
            results = [
                step_of_problems(loop.rules[owner], loop.task, *arguments)
                for owner, *arguments in zip(
                    loop.partition.owners,
                    loop.partition.split(scaled),
                    rule_state,
                    loop.partition.split(positions),
                    strict=True,
                )
            ]
            updates, rule_state = zip(*results, strict=True)
            update = loop.partition.join(updates)
            parameters = parameters + (update if scale is None else scale * update)
            step_losses, gradient, task_state = loop.task.loss_and_gradient(
                parameters, task_state, draw(t)
            )
            losses.append(step_losses)
        losses = tf.stack(losses)
        value = meta_loss(losses)
    meta_gradient = tape.gradient(
        value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return value, meta_gradient, losses, Inner(parameters, gradient, list(rule_state), task_state)


def a_meta_loss(name="mean", step_weights="linear", unroll=4, initial=1.0):
    progress = np.arange(1, unroll + 1, dtype="float32") / unroll
    return lambda losses: window_loss(name, step_weights, losses, initial, progress)


def a_scale(task):
    """Factors of a reparametrisation, over orders of magnitude."""
    exponents = np.random.default_rng(5).uniform(-1.5, 1.5, task.size)
    return tf.constant(np.exp(exponents), tf.float32)


def assert_close(actual, expected, tolerance=1e-5):
    """Holds every array to a tolerance relative to the largest number in it."""
    actual, expected = tf.nest.flatten(actual), tf.nest.flatten(expected)
    assert len(actual) == len(expected) > 0
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        error = np.abs(np.asarray(a, "float64") - np.asarray(e, "float64"))
        assert np.max(error, initial=0) <= tolerance * max(np.max(np.abs(e), initial=0), 1e-6)


def assert_meta_gradient(actual, expected, tolerance=1e-5):
    """Holds a meta-gradient to a tolerance relative to its largest component."""
    assert len(actual) == len(expected) > 0
    assert all(a.shape == e.shape for a, e in zip(actual, expected, strict=True))
    a, e = (np.concatenate([np.ravel(part) for part in parts]) for parts in (actual, expected))
    assert np.isfinite(e).all()
    assert np.abs(e).max() > 1e-6
    assert np.abs(a - e).max() <= tolerance * np.abs(e).max()


def assert_as_by_tape(loop, *window, tolerance=1e-5):
    """Compares what `InnerLoop.meta_gradient` and `by_tape` return."""
    value, meta_gradient, losses, inner = loop.meta_gradient(*window)
    expected = by_tape(loop, *window)
    assert_close(value, expected[0], tolerance)
    # Split rules keep their gates in 16 bits.
    split = any(isinstance(rule, SplitRule) for rule in loop.rules)
    assert_meta_gradient(meta_gradient, expected[1], max(tolerance, 1e-4 if split else 0.0))
    assert_close(losses, expected[2], tolerance)
    assert_close(inner, expected[3], tolerance=10 * tolerance)


@pytest.fixture(name="eagerly")
def eagerly_fixture():
    """Without compilation, which takes seconds for each rule and size."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


RULES = {
    "lstm": lambda: randomize(CoordinatewiseLSTM((3, 2)), 1),
    "lstm_plain": lambda: randomize(CoordinatewiseLSTM((3,), "none"), 2),
    "rnnprop": lambda: randomize(RNNprop((3,)), 3),
    "momentum_lstm": lambda: randomize(MomentumLSTM((3,), rate=0.02), 4),
    "momentum": Momentum,
}
# Rules over all coordinates of a function.
COUPLED = {
    "global_averaging_lstm": lambda: randomize(GlobalAveragingLSTM((3, 2), 1), 5),
    "ntm_bfgs": lambda: randomize(NTMBFGS((3,), 1, output_scale=0.5), 6),
    "ntm_bfgs_low_rank": lambda: randomize(NTMBFGS((3,), 1, memory_rank=2, output_scale=0.5), 7),
    "tensorwise_lstm": lambda: randomize(TensorwiseLSTM(3), 8),
}
# Of the 12 coordinates: all at once; in 3 chunks that are kept; the same computed again; and
# in 5 chunks (the last one filled up), the first few of which are kept.
CHUNKS = {
    "whole": {"chunk_size": 4096, "cache_bytes": LARGE},
    "cached": {"chunk_size": 4, "cache_bytes": LARGE},
    "recomputed": {"chunk_size": 4, "cache_bytes": 0},
    "mixed": {"chunk_size": 3, "cache_bytes": 3000},
}


both_orders = pytest.mark.parametrize("second", [False, True], ids=["first", "second"])


class TestExactness:
    """The meta-gradient, computed without a tape over the window, is that of such a tape."""

    @both_orders
    @pytest.mark.parametrize(
        ("rule", "chunks"),
        [
            ("lstm", "mixed"),
            ("rnnprop", "recomputed"),
            ("momentum_lstm", "mixed"),
            ("momentum", "cached"),
        ],
    )
    def test_compiled(self, rule, chunks, second):
        task = quadratic()
        loop = InnerLoop(RULES[rule](), task, **CHUNKS[chunks])
        initial, inner = start(loop)
        for name in META_LOSSES:
            for scale in (None, a_scale(task)):
                window = (
                    inner,
                    drawing(task),
                    4,
                    a_meta_loss(name, initial=initial),
                    scale,
                    second,
                )
                assert_as_by_tape(loop, *window)

    @both_orders
    @pytest.mark.parametrize(
        ("rule", "chunks", "task"),
        [(rule, chunks, quadratic) for rule in RULES for chunks in CHUNKS]
        # A bias before batch normalisation has a gradient of nothing but rounding errors. Rules
        # that see it relative to its usual size take it for as good as any.
        + [(rule, "mixed", network) for rule in ("lstm_plain", "momentum")],
    )
    def test_eager(self, rule, chunks, task, second, eagerly):
        task = task()
        loop = InnerLoop(RULES[rule](), task, **CHUNKS[chunks])
        initial, inner = start(loop)
        meta_loss = a_meta_loss("log", unroll=3, initial=initial)
        window = (inner, drawing(task), 3, meta_loss, a_scale(task), second)
        assert_as_by_tape(loop, *window)

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.data())
    def test_whatever_the_arguments(self, data):
        functions = data.draw(st.integers(1, 4), "functions")
        dimension = data.draw(st.integers(1, 4), "dimension")
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
        task = quadratic(dimension, functions)
        loop = InnerLoop(
            rule,
            task,
            chunk_size=data.draw(st.integers(1, 20), "chunk_size"),
            cache_bytes=data.draw(st.sampled_from([0, 500, 5000, LARGE]), "cache_bytes"),
        )
        unroll = data.draw(st.integers(1, 4), "unroll")
        name = data.draw(st.sampled_from(sorted(META_LOSSES)), "meta_loss")
        weights = data.draw(st.sampled_from(sorted(STEP_WEIGHTS)), "step_weights")
        scale = a_scale(task) if data.draw(st.booleans(), "scaled") else None
        second = data.draw(st.booleans(), "second derivatives")
        tf.config.run_functions_eagerly(True)
        try:
            initial, inner = start(loop, steps=data.draw(st.integers(0, 2), "steps before"))
            meta_loss = a_meta_loss(name, weights, unroll, initial)
            window = (inner, drawing(task), unroll, meta_loss, scale, second)
            assert_as_by_tape(loop, *window)
        finally:
            tf.config.run_functions_eagerly(False)


@pytest.fixture(name="coupled", scope="module", params=COUPLED)
def coupled_fixture(request):
    """A compiled loop: what vectorises problems takes longer to run eagerly than to compile."""
    # Not the chunks, which would cut functions apart; recomputed, where there is anything to keep.
    return InnerLoop(COUPLED[request.param](), quadratic(), chunk_size=5, cache_bytes=0)


class TestCoupledRules:
    """Rules over all coordinates, on several functions side by side."""

    @both_orders
    def test_their_meta_gradients_are_those_of_a_tape(self, coupled, second):
        initial, inner = start(coupled)
        # A memory divides by changes of gradients, and so by differences of what is rounded.
        tolerance = 1e-3 if isinstance(coupled.rules[0], NTMBFGS) else 1e-5
        for name, scale in (("linear", None), ("uniform", a_scale(coupled.task))):
            meta_loss = a_meta_loss("log", name, unroll=3, initial=initial)
            window = (inner, drawing(coupled.task), 3, meta_loss, scale, second)
            assert_as_by_tape(coupled, *window, tolerance=tolerance)

    def test_functions_are_whole(self, coupled):
        assert coupled.partition.owners == [0]
        assert coupled.partition.shape(0) == (4, 3)

    def test_functions_exchange_nothing(self, coupled):
        parameters, (w, y) = coupled.task.sample("train", 0)
        other = tf.tensor_scatter_nd_add(y, [[0, 0]], [3.0])

        def meta_loss(losses):
            return tf.reduce_mean(tf.math.log(losses[:, 1:]))

        results = []
        for target in (y, other):
            _, inner = coupled.start(parameters, (w, target), ())
            results.append(coupled.meta_gradient(inner, drawing(coupled.task), 3, meta_loss))
        (_, expected, expected_losses, expected_after), (_, actual, losses, after) = results
        np.testing.assert_array_equal(losses[:, 1:], expected_losses[:, 1:])
        np.testing.assert_array_equal(after.parameters[3:], expected_after.parameters[3:])
        for part, expected_part in zip(
            after.rule_state[0], expected_after.rule_state[0], strict=True
        ):
            np.testing.assert_array_equal(part[1:], expected_part[1:])
            assert np.any(part[0] != expected_part[0])
        assert_meta_gradient(actual, expected)
        assert np.all(losses[:, 0] != expected_losses[:, 0])

    @both_orders
    def test_zero_gradients_have_finite_meta_gradients(self, coupled, second):
        """All gradients of the first function are zero."""
        parameters, (w, y) = coupled.task.sample("train", 0)
        alive = tf.constant([0.0, 1.0, 1.0, 1.0])
        state = (w * alive[:, None, None], y * alive[:, None])
        _, inner = coupled.start(parameters, state, ())
        window = (inner, drawing(coupled.task), 3, a_meta_loss("log", unroll=3), None, second)
        value, meta_gradient, _, after = coupled.meta_gradient(*window)
        for part in (value, *meta_gradient, *tf.nest.flatten(after)):
            assert np.isfinite(part).all()
        assert max(np.abs(part).max() for part in meta_gradient) > 0


class TestGroups:
    """Rules of their own for some of an optimizee's weights, which are not adjacent."""

    @both_orders
    @pytest.mark.parametrize("chunks", CHUNKS)
    def test_their_meta_gradients_are_those_of_a_tape(self, chunks, second, eagerly):
        task = network()
        groups = {"kernel": RULES["lstm_plain"](), "bias|gamma": Momentum(), ".*": Momentum(-2.0)}
        loop = InnerLoop(groups, task, **CHUNKS[chunks])
        assert loop.rules == list(groups.values())
        _, inner = start(loop)
        window = (inner, drawing(task), 3, a_meta_loss(unroll=3), a_scale(task), second)
        assert_as_by_tape(loop, *window)

    def test_one_may_have_a_rule_over_all_its_coordinates(self):
        task = network()
        rule = randomize(GlobalAveragingLSTM((3,), 1, "none"), 5)
        loop = InnerLoop({"kernel": rule, ".*": Momentum()}, task, chunk_size=3)
        # Two kernels, of six coordinates and of two; and seven others.
        assert [loop.partition.shape(k) for k in range(4)] == [(8,), (3,), (3,), (3,)]
        _, inner = start(loop)
        for second in (False, True):
            window = (inner, drawing(task), 3, a_meta_loss(unroll=3), None, second)
            assert_as_by_tape(loop, *window)

    @both_orders
    def test_groups_of_one_rule_are_that_rule(self, second, eagerly):
        task = network()
        whole = InnerLoop(RULES["lstm_plain"](), task)
        groups = InnerLoop({key: RULES["lstm_plain"]() for key in ("bias", "gamma", ".*")}, task)
        results = []
        for loop in (whole, groups):
            _, inner = start(loop)
            results.append(
                loop.meta_gradient(
                    inner, drawing(task), 3, a_meta_loss(unroll=3), a_scale(task), second
                )
            )
        (value, expected, losses, after), (group_value, parts, group_losses, group_after) = results
        assert_close(group_value, value)
        assert_close(group_losses, losses)
        assert_close(group_after.parameters, after.parameters)
        # φ of the whole is that of every group at once.
        actual = [tf.add_n(parts[k :: len(expected)]) for k in range(len(expected))]
        assert_meta_gradient(actual, expected, tolerance=1e-4)

    def test_one_group_may_have_several_functions(self, eagerly):
        loop = InnerLoop({"parameters": Momentum()}, quadratic(), chunk_size=5)
        _, inner = start(loop)
        window = (inner, drawing(loop.task), 3, a_meta_loss(unroll=3))
        assert_as_by_tape(loop, *window)

    @pytest.mark.parametrize(
        ("groups", "task", "message"),
        [
            (
                {"conv": Momentum, ".*": Momentum},
                network,
                "Every group must have variables of the task. Received: 'conv', which has none of "
                r"\[.*kernel",
            ),
            (
                {"para": Momentum, ".*": Momentum},
                quadratic,
                r"need a task of one function. Received: 4 functions, groups \['para', '\.\*'\]",
            ),
            (
                {"bias": keras.optimizers.Adam, ".*": Momentum},
                network,
                "Every group must have an update rule. Received: .*'bias'",
            ),
            ({"kernel": Momentum}, network, "Every variable must match one of .*bias"),
            ({}, network, "One group at least must have"),
        ],
        ids=["no variables", "functions", "optimizer", "not all", "none"],
    )
    def test_groups_that_cannot_be_are_refused(self, groups, task, message):
        with pytest.raises(ValueError, match=message):
            InnerLoop({key: make() for key, make in groups.items()}, task())


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_what_overflows_on_the_way_back_is_replaced(value):
    """By the first-order derivative; what else came that way is forgotten."""
    first_order = tf.constant([3.0, 4.0])
    derivative, rest = _clip(first_order, tf.constant([value, 1.0]), [tf.constant([np.inf, 1.0])])
    np.testing.assert_array_equal(derivative, first_order)
    np.testing.assert_array_equal(rest[0], [0.0, 0.0])


class TestDifferences:
    """Meta-gradients against differences of the meta-loss, computed in NumPy."""

    STEPS = 6

    def window(self, second_derivatives):
        """A window's meta-gradient, and the same problem in NumPy."""
        loop = InnerLoop(Momentum(), quadratic(), chunk_size=5)
        _, inner = start(loop)
        meta_loss = a_meta_loss(unroll=self.STEPS)
        value, meta_gradient, _, _ = loop.meta_gradient(
            inner,
            drawing(loop.task),
            self.STEPS,
            meta_loss,
            second_derivatives=second_derivatives,
        )
        momentum = tf.concat([chunk[0][0] for chunk in inner.rule_state], 0)[: loop.task.size]
        window = functools.partial(
            numpy_window,
            task_state=[part.numpy().astype("float64") for part in inner.task_state],
            theta=inner.parameters.numpy().astype("float64").reshape(4, 3),
            momentum=momentum.numpy().astype("float64").reshape(4, 3),
            steps=self.STEPS,
        )
        return float(value), [float(d) for d in meta_gradient[:2]], window

    def numpy_meta_loss(self, window, phi, gradients=None):
        losses, _ = window(phi, gradients=gradients)
        progress = np.arange(1, self.STEPS + 1) / self.STEPS
        return np.mean(2 * progress * losses.mean(axis=1))

    def test_with_second_derivatives_it_is_the_whole_derivative(self, eagerly):
        value, meta_gradient, window = self.window(second_derivatives=True)
        phi = np.array([-3.0, 0.5])
        assert value == pytest.approx(self.numpy_meta_loss(window, phi), rel=1e-5)
        expected = differences(functools.partial(self.numpy_meta_loss, window), phi)
        np.testing.assert_allclose(meta_gradient, expected, rtol=1e-4)

    def test_without_it_takes_the_optimizees_gradients_as_given(self, eagerly):
        _, meta_gradient, window = self.window(second_derivatives=False)
        phi = np.array([-3.0, 0.5])
        _, gradients = window(phi)
        expected = differences(
            functools.partial(self.numpy_meta_loss, window, gradients=gradients), phi
        )
        np.testing.assert_allclose(meta_gradient, expected, rtol=1e-4)
        # Which matters.
        whole = differences(functools.partial(self.numpy_meta_loss, window), phi)
        assert np.abs(expected - whole).max() > 0.1 * np.abs(whole).max()

    @staticmethod
    def descent(rate):
        """Norms of whole, clipped and first-order meta-gradients of descent at a given rate."""
        loop = InnerLoop(Momentum(np.log(rate), -20.0), quadratic())
        _, inner = start(loop, steps=0)
        arguments = (inner, drawing(loop.task), 20, a_meta_loss(unroll=20), None)
        return [
            float(tf.linalg.global_norm(loop.meta_gradient(*arguments, *derivatives)[1]))
            for derivatives in ((True, False), (True, True), (False,))
        ]

    def test_small_steps_leave_nothing_to_clip_through_time(self, eagerly):
        """Where steps contract, the whole derivative is the smaller one."""
        whole, clipped, first_order = self.descent(rate=0.01)
        assert clipped == pytest.approx(whole, rel=1e-5)
        assert whole < first_order

    def test_large_steps_are_clipped_through_time(self, eagerly):
        """Where they diverge, the whole derivative grows with every step that it goes back."""
        whole, clipped, first_order = self.descent(rate=0.15)
        assert whole > 10.0 * first_order
        assert first_order < clipped < 3.0 * first_order

    @pytest.mark.parametrize(
        ("rule", "task"),
        # Not rnnprop on the network: a bias before batch normalisation has a gradient of nothing
        # but rounding errors, which that rule takes for as good as any.
        [("lstm_plain", network), ("rnnprop", quadratic)],
    )
    def test_second_derivatives_of_recurrent_rules(self, rule, task, eagerly):
        """In float32: along one direction, and not to many digits."""
        rule = RULES[rule]()
        loop = InnerLoop(rule, task())
        _, inner = start(loop)
        draw = drawing(loop.task)
        meta_loss = a_meta_loss(unroll=3)
        _, whole, _, _ = loop.meta_gradient(inner, draw, 3, meta_loss, second_derivatives=True)
        _, first, _, _ = loop.meta_gradient(inner, draw, 3, meta_loss)
        weights = rule.get_weights()
        norm = math.sqrt(sum(float(tf.reduce_sum(d**2)) for d in whole))

        def value(step):
            rule.set_weights([w + step * d / norm for w, d in zip(weights, whole, strict=True)])
            at, losses = inner, []
            for t in range(3):
                step_losses, at = loop.step(at, draw(t))
                losses.append(step_losses)
            return float(meta_loss(tf.stack(losses)))

        slope = (value(0.02) - value(-0.02)) / 0.04
        assert slope == pytest.approx(norm, rel=0.02)
        along = sum(float(tf.reduce_sum(f * d)) for f, d in zip(first, whole, strict=True)) / norm
        assert abs(along - norm) > 1e-3 * norm


@pytest.fixture(name="loop", scope="module")
def loop_fixture():
    """A compiled loop, as meta-training uses it."""
    return InnerLoop(RULES["lstm_plain"](), quadratic(), chunk_size=5, cache_bytes=3000)


class TestWindow:
    """What a window counts, and that nothing is lost or counted twice at its ends."""

    def test_its_losses_are_those_after_its_updates(self, loop):
        _, inner = start(loop)
        _, _, losses, after = loop.meta_gradient(inner, drawing(loop.task), 3, tf.reduce_sum)
        assert losses.shape == (3, 4)
        before, _ = loop.task.loss(inner.parameters, inner.task_state, ())
        last, _ = loop.task.loss(after.parameters, after.task_state, ())
        assert_close(losses[-1], last)
        assert np.abs(losses[0] - before).min() > 1e-4
        # The gradient is that of the next step's beginning.
        _, gradient, _ = loop.task.loss_and_gradient(after.parameters, after.task_state, ())
        assert_close(after.gradient, gradient)

    def test_its_last_update_has_a_gradient(self, loop):
        _, inner = start(loop)
        _, meta_gradient, _, _ = loop.meta_gradient(inner, drawing(loop.task), 1, tf.reduce_mean)
        # The bias of the output, one weight, moves all coordinates alike.
        _, after = loop.step(inner, ())
        expected = loop.rules[0].output_scale * tf.reduce_sum(after.gradient, keepdims=True) / 4
        assert_close(meta_gradient[-1], expected)

    def test_every_loss_is_a_matter_of_the_updates_before_it(self, loop):
        # f(θ_1) has the same gradient whether or not the window goes on.
        _, inner = start(loop)
        _, short, _, _ = loop.meta_gradient(
            inner, drawing(loop.task), 1, lambda losses: tf.reduce_mean(losses[0])
        )
        _, long, _, _ = loop.meta_gradient(
            inner, drawing(loop.task), 3, lambda losses: tf.reduce_mean(losses[0])
        )
        assert_meta_gradient(long, short)

    def test_two_windows_count_the_losses_of_one_of_twice_the_length(self, loop):
        _, inner = start(loop)
        one = loop.meta_gradient(inner, drawing(loop.task), 10, tf.reduce_sum)
        first = loop.meta_gradient(inner, drawing(loop.task), 5, tf.reduce_sum)
        second = loop.meta_gradient(first[3], drawing(loop.task, 5), 5, tf.reduce_sum)
        assert_close(tf.concat([first[2], second[2]], axis=0), one[2])
        assert_close(first[0] + second[0], one[0])
        assert_close(second[3], one[3], tolerance=1e-4)
        # f(θ_0) is in neither, and all others differ: ten, not nine or eleven.
        assert len(np.unique(one[2][:, 0])) == 10

    def test_windows_go_where_single_steps_go(self, loop):
        _, inner = start(loop)
        draw = drawing(loop.task)
        _, _, losses, after = loop.meta_gradient(inner, draw, 3, tf.reduce_sum)
        for t, step_losses in enumerate(tf.unstack(losses)):
            expected, inner = loop.step(inner, draw(t))
            assert_close(step_losses, expected)
        assert_close(after, inner, tolerance=1e-4)

    def test_each_loss_is_that_of_its_own_minibatch(self, eagerly):
        task = network()
        loop = InnerLoop(RULES["momentum"](), task)
        _, inner = start(loop)
        draw = drawing(task)
        _, _, losses, _ = loop.meta_gradient(inner, draw, 3, tf.reduce_sum)
        for t, step_losses in enumerate(tf.unstack(losses)):
            _, after = loop.step(inner, draw(t))
            expected, _ = task.loss(after.parameters, inner.task_state, draw(t))
            assert_close(step_losses, expected)
            inner = after


class TestZeroGradients:
    @both_orders
    @pytest.mark.parametrize("meta_loss", META_LOSSES)
    @pytest.mark.parametrize("rule", RULES)
    def test_they_have_finite_meta_gradients(self, rule, meta_loss, second, eagerly):
        """All gradients of the first function are zero, as those of dead units are."""
        task = quadratic()
        loop = InnerLoop(RULES[rule](), task, chunk_size=5)
        parameters, (w, y) = task.sample("train", 0)
        alive = tf.constant([0.0, 1.0, 1.0, 1.0])
        state = (w * alive[:, None, None], y * alive[:, None])
        initial, inner = loop.start(parameters, state, ())
        assert not np.any(inner.gradient[:3])
        value, meta_gradient, losses, after = loop.meta_gradient(
            inner,
            drawing(task),
            3,
            a_meta_loss(meta_loss, unroll=3, initial=initial),
            second_derivatives=second,
        )
        np.testing.assert_array_equal(losses[:, 0], np.zeros(3))
        assert np.isfinite(value)
        for part in (*meta_gradient, *tf.nest.flatten(after)):
            assert np.isfinite(part).all()
        assert max(np.abs(part).max() for part in meta_gradient) > 0

    @pytest.mark.parametrize("size", [0.0, 1e-18, 1e-25, 1e-38])
    @pytest.mark.parametrize("rule", RULES | COUPLED)
    def test_steps_have_finite_derivatives(self, rule, size):
        """As second derivatives need them, zero and next to it."""
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


class TestScale:
    def test_it_is_a_reparametrisation(self, eagerly):
        """Steps on θ with a scale are steps on θ' = θ / s of f'(θ') = f(s · θ')."""
        task = quadratic()
        parameters, (w, y) = task.sample("train", 0)
        scale = a_scale(task)
        loop = InnerLoop(RULES["lstm"](), task, chunk_size=5)
        losses, inner = loop.start(parameters, (w, y), ())
        scaled_w = w * tf.reshape(scale, (4, 1, 3))
        expected_losses, expected = loop.start(parameters / scale, (scaled_w, y), ())
        assert_close(losses, expected_losses)
        for _ in range(5):
            losses, inner = loop.step(inner, (), scale)
            expected_losses, expected = loop.step(expected, ())
            assert_close(losses, expected_losses, tolerance=1e-4)
        assert_close(inner.parameters, scale * expected.parameters, tolerance=1e-4)


class TestLearnedOptimizer:
    """Meta-training unrolls the very steps that the optimizer makes."""

    STEPS = 10

    @pytest.mark.parametrize("rule", RULES | COUPLED)
    def test_it_follows_the_trajectory_of_meta_training_on_a_network(self, rule, eagerly):
        def model_fn():
            return keras.Sequential(
                [
                    keras.Input((3,)),
                    keras.layers.Dense(4, activation="tanh"),
                    keras.layers.BatchNormalization(),
                    keras.layers.Dense(1),
                ]
            )

        random = np.random.default_rng(0)
        x = random.normal(size=(40, 3)).astype("float32")
        y = np.sin(x.sum(axis=1, keepdims=True)).astype("float32")
        task = KerasTask(model_fn, "mean_squared_error", (x, y), batch_size=8)
        rule = (RULES | COUPLED)[rule]()
        loop = InnerLoop(rule, task, chunk_size=7)
        parameters, state = task.sample("train", 3)
        batches = [drawing(task)(t) for t in range(self.STEPS + 1)]
        losses, inner = loop.start(parameters, state, batches[0])
        expected = [float(losses[0])]
        for batch in batches[1:]:
            losses, inner = loop.step(inner, batch)
            expected.append(float(losses[0]))

        model = model_fn()
        model.compile(LearnedOptimizer(rule), "mean_squared_error", run_eagerly=True)
        start = 0
        for variable in model.trainable_variables:
            stop = start + math.prod(variable.shape)
            variable.assign(tf.reshape(parameters[start:stop], variable.shape))
            start = stop
        actual = [model.train_on_batch(*batch) for batch in batches[: self.STEPS]]
        np.testing.assert_allclose(actual, expected[:-1], rtol=1e-4)
        final = np.concatenate([np.ravel(v) for v in model.trainable_variables])
        np.testing.assert_allclose(final, inner.parameters, rtol=1e-3, atol=1e-5)
        assert np.abs(final - parameters).max() > 1e-2

    def test_it_follows_windows_of_meta_training_on_quadratics(self):
        """Compiled, with a meta-gradient after every window but φ frozen."""
        rule = RULES["rnnprop"]()
        task = quadratic()
        loop = InnerLoop(rule, task, chunk_size=5)
        parameters, state = task.sample("train", 1)
        _, inner = loop.start(parameters, state, ())
        for _ in range(2):
            _, _, _, inner = loop.meta_gradient(inner, drawing(task), 5, tf.reduce_mean)

        variable = keras.Variable(parameters)
        optimizer = LearnedOptimizer(rule)
        optimizer.build([variable])
        for _ in range(10):
            _, gradient, _ = task.loss_and_gradient(variable.value, state, ())
            optimizer.apply([gradient])
        np.testing.assert_allclose(variable.value, inner.parameters, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
