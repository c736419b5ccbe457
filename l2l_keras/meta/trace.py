"""The trace of a window: what its meta-gradient needs of every step.

A trace holds losses and gradients of all steps. The rules' caches and states, which are larger, are
kept as far as memory allows. The rest is computed again, piece by piece, when it is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from l2l_keras.meta import graph_loops
from l2l_keras.meta.inner_loop import InnerLoop, InnerState

Tensor = Any
Nest = Any


class Trace(NamedTuple):
    """A window, step by step. All but `start`, the state before it, are `tf.TensorArray`s.

    `losses` are f(θ_1) … f(θ_T), and `gradients` ∇f(θ_0) … ∇f(θ_T). `caches` are those of the first
    pieces. `states`, from before the first step on, are empty if not kept. `optimizee` is, for
    second derivatives, θ_t after every step and the state before its loss.
    """

    start: InnerState
    losses: Any
    gradients: Any
    caches: list[Nest]
    states: list[Nest]
    optimizee: Nest


class Kept(NamedTuple):
    """What a trace keeps: caches of the first pieces, all states or none, and optimizees."""

    caches: int
    states: bool
    optimizee: bool


def plan(loop: InnerLoop, unroll: int, cache_bytes: int, second_derivatives: bool = False) -> Kept:
    """Decides what to keep of a window, given the bytes for the rules' states and caches."""
    specs = [piece.rule.specs(piece.shape) for piece in loop.pieces]
    states, caches = (
        [unroll * graph_loops.bytes_of(part) for part in parts]
        for parts in zip(*specs, strict=True)
    )
    if sum(states) + sum(caches) <= cache_bytes:
        return Kept(len(caches), True, second_derivatives)
    if second_derivatives:
        return Kept(len(caches), False, True)
    fitting = sum(total <= cache_bytes for total in itertools.accumulate(caches))
    # The parameters that a tensorwise rule saw cannot be computed again from gradients.
    needed = [k + 1 for k, piece in enumerate(loop.pieces) if piece.rule.sees_parameters]
    return Kept(max([fitting, *needed]), False, False)


def record(
    loop: InnerLoop, take_step: Callable, inner: InnerState, carry: Nest, unroll: int, kept: Kept
) -> tuple[Trace, InnerState, Nest]:
    """Runs the steps of a window and records them.

    `take_step` maps `(step, inner, carry)` to `(losses, inner, caches, carry)`, the caches of the
    first `kept.caches` pieces. Returns `(trace, inner, carry)`.
    """

    def rule_states(inner: InnerState) -> list[Nest]:
        return list(inner.rule_state) if kept.states else []

    def optimizee(inner: InnerState, task_state: Nest) -> Nest:
        return (inner.parameters, task_state) if kept.optimizee else ()

    cache_specs = [piece.rule.specs(piece.shape)[1] for piece in loop.pieces[: kept.caches]]
    new, write = graph_loops.new_arrays, graph_loops.write
    start = Trace(
        start=inner,
        losses=new(tf.TensorSpec((loop.task.functions,)), unroll),
        gradients=write(new(inner.gradient, unroll + 1), 0, inner.gradient),
        caches=[new(cache, unroll) for cache in cache_specs],
        states=[write(new(state, unroll + 1), 0, state) for state in rule_states(inner)],
        optimizee=new(optimizee(inner, inner.task_state), unroll),
    )

    def body(t: Tensor, inner: InnerState, carry: Nest, *arrays: Nest) -> tuple:
        losses, gradients, caches, states, optimizees = arrays
        task_state = inner.task_state
        step_losses, inner, step_caches, carry = take_step(t, inner, carry)
        return (
            inner,
            carry,
            losses.write(t, step_losses),
            gradients.write(t + 1, inner.gradient),
            write(caches, t, step_caches),
            write(states, t + 1, rule_states(inner)),
            write(optimizees, t, optimizee(inner, task_state)),
        )

    end, carry, *arrays = graph_loops.run(range(unroll), body, (inner, carry, *start[1:]))
    return Trace(inner, *arrays), end, carry


def recall(
    loop: InnerLoop, weights: list[Tensor], trace: Trace, k: int, gradients: Tensor
) -> tuple[Nest, Nest]:
    """Returns the caches and states of piece `k`, and computes what was not kept of them.

    The rule saw `gradients`, those of the piece, `[unroll + 1, …]`.
    """
    if k < len(trace.states):
        return trace.caches[k], trace.states[k]
    read, write = graph_loops.read, graph_loops.write
    unroll = gradients.shape[0] - 1
    piece, state = loop.pieces[k], trace.start.rule_state[k]
    state_specs, cache_specs = piece.rule.specs(piece.shape)
    own_weights = weights[piece.group]
    states = write(graph_loops.new_arrays(state_specs, unroll + 1), 0, state)
    if k < len(trace.caches):
        caches = trace.caches[k]

        def replay(t: Tensor, state: tuple, states: Nest) -> tuple:
            state = piece.rule.replay(own_weights, gradients[t], state, read(caches, t))
            return state, write(states, t + 1, state)

        return caches, graph_loops.run(range(unroll), replay, (state, states))[1]

    def forward(t: Tensor, state: tuple, caches: Nest, states: Nest) -> tuple:
        _, state, cache = piece.rule.forward(own_weights, gradients[t], state, ())
        return state, write(caches, t, cache), write(states, t + 1, state)

    start = (state, graph_loops.new_arrays(cache_specs, unroll), states)
    return graph_loops.run(range(unroll), forward, start)[1:]
