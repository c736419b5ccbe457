"""The trace of a window: what its meta-gradient needs of every step.

A trace holds losses and gradients of all steps. The rules' caches and states, which are larger, are
kept of as many pieces as memory allows. The rest is computed again, piece by piece.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from l2l_keras.meta import graph_loops
from l2l_keras.meta.inner_loop import InnerLoop, InnerState
from l2l_keras.tasks.base import Nest, Tensor


class Trace(NamedTuple):
    """A window, step by step. All but `start`, the state before it, are `tf.TensorArray`s.

    `losses` are f(θ_1) … f(θ_T), and `gradients` ∇f(θ_0) … ∇f(θ_T). `caches` and `states`, from
    before the first step on, are those of the first pieces. `unconstrained` are parameters before
    constraints, if the task has any.
    """

    start: InnerState
    losses: Any
    gradients: Any
    caches: list[Nest]
    states: list[Nest]
    unconstrained: Nest


def pieces_to_keep(loop: InnerLoop, unroll: int, cache_bytes: int) -> int:
    """Returns of how many pieces to keep a window's states and caches."""
    sizes = [unroll * graph_loops.bytes_of(piece.rule.specs(piece.shape)) for piece in loop.pieces]
    fitting = sum(total <= cache_bytes for total in itertools.accumulate(sizes))
    # The parameters that a tensorwise rule saw cannot be computed again from gradients.
    needed = [k + 1 for k, piece in enumerate(loop.pieces) if piece.rule.sees_parameters]
    return max([fitting, *needed])


def record(
    loop: InnerLoop, take_step: Callable, inner: InnerState, carry: Nest, unroll: int, kept: int
) -> tuple[Trace, InnerState, Nest]:
    """Runs the steps of a window and records them.

    `take_step` maps `(step, inner, carry)` to `(losses, inner, caches, carry)`, the caches of the
    first `kept` pieces. Returns `(trace, inner, carry)`.
    """
    new, write = graph_loops.new_arrays, graph_loops.write
    specs = [piece.rule.specs(piece.shape) for piece in loop.pieces[:kept]]
    states = [new(state, unroll + 1) for state, _ in specs]
    start = Trace(
        start=inner,
        losses=new(tf.TensorSpec((loop.task.functions,)), unroll),
        gradients=write(new(inner.gradient, unroll + 1), 0, inner.gradient),
        caches=[new(cache, unroll) for _, cache in specs],
        states=write(states, 0, list(inner.rule_state[:kept])),
        unconstrained=new(inner.unconstrained, unroll),
    )

    def body(t: Tensor, inner: InnerState, carry: Nest, *arrays: Nest) -> tuple:
        losses, gradients, caches, states, unconstrained = arrays
        step_losses, inner, step_caches, carry = take_step(t, inner, carry)
        return (
            inner,
            carry,
            losses.write(t, step_losses),
            gradients.write(t + 1, inner.gradient),
            write(caches, t, step_caches),
            write(states, t + 1, list(inner.rule_state[:kept])),
            write(unconstrained, t, inner.unconstrained),
        )

    end, carry, *arrays = graph_loops.run(unroll, body, (inner, carry, *start[1:]))
    return Trace(inner, *arrays), end, carry


def recall(
    loop: InnerLoop, weights: list[Tensor], trace: Trace, k: int, gradients: Tensor
) -> tuple[Nest, Nest]:
    """Returns the caches and states of piece `k`, computed again if they were not kept.

    The rule saw `gradients`, those of the piece, `[unroll + 1, …]`.
    """
    if k < len(trace.caches):
        return trace.caches[k], trace.states[k]
    new, write = graph_loops.new_arrays, graph_loops.write
    unroll = gradients.shape[0] - 1
    piece, state = loop.pieces[k], trace.start.rule_state[k]
    state_spec, cache_spec = piece.rule.specs(piece.shape)

    def body(t: Tensor, state: tuple, caches: Nest, states: Nest) -> tuple:
        _, state, cache = piece.rule.forward(weights[piece.group], gradients[t], state, ())
        return state, write(caches, t, cache), write(states, t + 1, state)

    states = write(new(state_spec, unroll + 1), 0, state)
    return graph_loops.run(unroll, body, (state, new(cache_spec, unroll), states))[1:]
