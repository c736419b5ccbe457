"""Rules and tasks of the tests of meta-gradients, and the plain way to compute these."""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from l2l_keras.meta import BackPropagation, InnerState, Steps, Windows
from l2l_keras.rules import (
    NTMBFGS,
    CoordinatewiseLSTM,
    GlobalAveragingLSTM,
    MomentumLSTM,
    RNNprop,
    SplitRule,
    Tensors,
    TensorwiseLSTM,
    UpdateRule,
)
from l2l_keras.tasks import KerasTask, Quadratic

RATE = 0.02
"""Initial rate of `Descent`."""


class Descent(UpdateRule):
    """Gradient descent with a learned rate: a rule without a state, easily computed otherwise."""

    def __init__(self, name=None):
        super().__init__(name=name)
        initializer = keras.initializers.Constant(math.log(RATE))
        self.log_rate = self.add_weight(shape=(), initializer=initializer, name="log_rate")
        self.built = True

    @property
    def state_rows(self):
        return ()

    def step(self, gradient, state):
        return -ops.exp(self.log_rate) * gradient, state


class Momentum(UpdateRule):
    """Momentum with a learned rate and decay, and without a hand-written derivative."""

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


def randomize(rule, seed, scale=0.5):
    """Gives every weight a value of its own, zero biases included."""
    random = np.random.default_rng(seed)
    rule.set_weights(
        [(scale * random.normal(size=w.shape)).astype("float32") for w in rule.weights]
    )
    return rule


RULES = {
    "lstm": lambda: randomize(CoordinatewiseLSTM((3, 2)), 1),
    "lstm_plain": lambda: randomize(CoordinatewiseLSTM((3,), "none"), 2),
    "rnnprop": lambda: randomize(RNNprop((3,)), 3),
    "momentum_lstm": lambda: randomize(MomentumLSTM((3,), rate=0.02), 4),
    "momentum": Momentum,
}
"""Rules of scope "element"."""
COUPLED = {
    "global_averaging_lstm": lambda: randomize(GlobalAveragingLSTM((3, 2), 1), 5),
    "ntm_bfgs": lambda: randomize(NTMBFGS((3,), 1, output_scale=0.5), 6),
    "ntm_bfgs_low_rank": lambda: randomize(NTMBFGS((3,), 1, memory_rank=2, output_scale=0.5), 7),
    "tensorwise_lstm": lambda: randomize(TensorwiseLSTM(3), 8),
}
"""Rules of scope "model" and "tensor"."""
CHUNKS = {
    "whole": {"chunk_size": 4096, "cache_bytes": 2**27},
    "cached": {"chunk_size": 4, "cache_bytes": 2**27},
    "recomputed": {"chunk_size": 4, "cache_bytes": 0},
    "mixed": {"chunk_size": 3, "cache_bytes": 3000},
}
"""Of 12 parameters: all at once; 3 chunks that are cached; the same computed again; and 5 chunks,
the last one padded, the first few of which are cached."""


def quadratic(dimension=3, functions=4):
    return Quadratic(dimension, functions, initial_scale=0.5)


def network():
    """A task of one function with data, batch normalization and dropout."""

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
    x = random.normal(size=(160, 3)).astype("float32")
    y = np.sin(x.sum(axis=1, keepdims=True)).astype("float32")
    return KerasTask(model_fn, "mean_squared_error", (x, y), batch_size=8)


def constrained_network():
    """A task whose constraints cut weights off, and scale them."""

    def model_fn():
        hidden = keras.layers.Dense(3, "tanh", kernel_constraint=keras.constraints.MaxNorm(0.7))
        last = keras.layers.Dense(1, kernel_constraint="non_neg")
        return keras.Sequential([keras.Input((3,)), hidden, last])

    random = np.random.default_rng(0)
    x = random.normal(size=(160, 3)).astype("float32")
    return KerasTask(model_fn, "mean_squared_error", (x, np.sin(x.sum(axis=1))), batch_size=8)


def drawing(task, first=0):
    """Draws the minibatches of a window that starts at some step."""
    return lambda t: task.batch("train", tf.stack([7, first + t]))


def steps_of(loop, count, scale=None, first=0, held_out=False, rate=None):
    """The steps of a window, with minibatches of their own."""

    def draw_held_out(t):
        return loop.task.held_out_batch("train", tf.stack([8, first + t]))

    draw = drawing(loop.task, first)
    return Steps(count, draw, scale, draw_held_out if held_out else None, rate)


def start(loop, seed=0, steps=2):
    """An inner loop that has taken a few steps, so that its states are not zero."""
    optimizee = loop.task.sample("train", seed)
    draw = drawing(loop.task, 100)
    initial, inner = loop.start(*optimizee, draw(0))
    for t in range(steps):
        _, inner = loop.step(inner, draw(1 + t))
    return initial, inner


def without_signal(task):
    """The start of the quadratics of seed 0, the first of which has no gradient anywhere."""
    parameters, (w, y) = task.sample("train", 0)
    alive = tf.constant([0.0, 1.0, 1.0, 1.0])
    return parameters, (w * alive[:, None, None], y * alive[:, None])


def meta_gradient(loop, inner, steps, meta_loss=tf.reduce_mean, **settings):
    """A window's meta-loss, meta-gradient and end, by `BackPropagation`."""
    return BackPropagation(**settings).window(loop, inner, steps, meta_loss, key=None)


def step_of_problems(rule, task, gradient, state, parameters):
    """A rule's step; function by function unless its scope is "element"."""
    more = ()
    if rule.scope == "tensor":
        one = task.functions == 1
        shapes = [w.shape for w in task.layout] if one else [(task.size // task.functions,)]
        more = (parameters, Tensors(shapes))
    if rule.scope == "element" or task.functions == 1:
        return rule.step(gradient, state, *more)
    results = []
    for k in range(task.functions):
        own = (parameters[k], *more[1:]) if more else ()
        results.append(rule.step(gradient[k], tuple(part[k] for part in state), *own))
    return tf.nest.map_structure(lambda *parts: tf.stack(parts), *results)


def by_tape(loop, inner, steps, meta_loss, second_derivatives=False):
    """What `meta_gradient` computes, the plain way: one tape over everything."""
    scale = 1.0 if steps.scale is None else steps.scale
    weights = [v.value for rule in loop.rules for v in rule.trainable_variables]
    parameters, gradient, rule_state, task_state, unconstrained = inner
    losses = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        for t in range(steps.unroll):
            if not second_derivatives:
                gradient = tf.stop_gradient(gradient)
            results = [
                step_of_problems(loop.rules[owner], loop.task, *arguments)
                for owner, *arguments in zip(
                    loop.partition.owners,
                    loop.partition.split(scale * gradient),
                    rule_state,
                    loop.partition.split(parameters / scale),
                    strict=True,
                )
            ]
            updates, rule_state = zip(*results, strict=True)
            rate = 1.0 if steps.rate is None else steps.rate(tf.constant(t))
            parameters = parameters + rate * scale * loop.partition.join(updates)
            if loop.task.constrained:
                unconstrained, parameters = parameters, loop.task.constrain(parameters)
            step_losses, gradient, task_state = loop.task.loss_and_gradient(
                parameters, task_state, steps.draw(t)
            )
            # The averages of batch normalization count as given.
            task_state = tf.nest.map_structure(tf.stop_gradient, task_state)
            if steps.draw_held_out:
                batch = steps.draw_held_out(t)
                step_losses = loop.task.held_out_loss(parameters, task_state, batch)
            losses.append(step_losses)
        value = meta_loss(tf.stack(losses))
    derivative = tape.gradient(value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    end = InnerState(parameters, gradient, list(rule_state), task_state, unconstrained)
    return value, derivative, end


def a_meta_loss(name="mean", step_weights="linear", unroll=4, initial=1.0):
    progress = np.arange(1, unroll + 1, dtype="float32") / unroll
    windows = Windows(unroll, name, step_weights)
    return lambda losses: windows.loss(losses, initial, progress)


def a_scale(task):
    """Factors of a reparametrization, over orders of magnitude."""
    exponents = np.random.default_rng(5).uniform(-1.5, 1.5, task.size)
    return tf.constant(np.exp(exponents), tf.float32)


def a_rate(t):
    """Learning rates that change from step to step."""
    return 2.0 - 0.6 * tf.cast(t, "float32")


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


def assert_as_by_tape(loop, inner, steps, meta_loss, cache_bytes=2**27, tolerance=1e-5):
    """Compares meta-gradients of both orders with those of a tape."""
    # Split rules keep their gates in 16 bits.
    split = any(isinstance(rule, SplitRule) for rule in loop.rules)
    for second in (False, True):
        value, derivative, end = meta_gradient(
            loop, inner, steps, meta_loss, second_derivatives=second, cache_bytes=cache_bytes
        )
        expected = by_tape(loop, inner, steps, meta_loss, second)
        assert_close(value, expected[0], tolerance)
        assert_meta_gradient(derivative, expected[1], max(tolerance, 1e-4 if split else 0.0))
        assert_close(end, expected[2], tolerance=10 * tolerance)
