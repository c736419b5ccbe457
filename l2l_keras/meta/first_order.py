"""First-order meta-gradients: the optimizee's gradients count as given.

The meta-loss L of a window is a function of f(θ_1), …, f(θ_T): it depends on every update of the
window, and no loss is counted in two windows. With θ_{t+1} = θ_t + r_t · u_t, where r_t is the
learning rate, and ∂∇f/∂φ dropped (the paper's choice),

    ∂L/∂u_t = r_t · Σ_{s > t} ∂L/∂f_s · ∇f(θ_s),

suffix sums of gradients that the inner loop has computed anyway. What is left is the rule's own
back-propagation through time, piece by piece; the optimizee is not differentiated again. This is
exact, but for the 16 bits in which LSTM rules keep their gates.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from l2l_keras.meta import graph_loops
from l2l_keras.meta.inner_loop import InnerLoop, Steps, scaled
from l2l_keras.meta.trace import Trace, recall
from l2l_keras.tasks.base import Tensor


def meta_gradient(
    loop: InnerLoop, weights: list[Tensor], trace: Trace, d_parameters: Tensor, steps: Steps
) -> list[Tensor]:
    """Computes the first-order meta-gradient of a window, one vector for each rule.

    `d_parameters`, float32 `[unroll, size]`, are ∂L/∂f_s · ∇f(θ_s): the derivatives of the
    meta-loss with respect to the parameters after each step, through their own losses.
    """
    gradients = scaled(trace.gradients.stack(), steps.scale)

    def before_constraints(t: Tensor, derivative: Tensor) -> Tensor:
        unconstrained = graph_loops.read(trace.unconstrained, t)
        return loop.before_constraints(unconstrained, derivative, steps.scale)

    d_updates = suffix_sums(scaled(d_parameters, steps.scale), before_constraints)
    if steps.rate is not None:
        d_updates *= steps.rate(tf.range(steps.unroll))[:, None]
    return back_propagate(loop, weights, trace, gradients, d_updates)


def back_propagate(
    loop: InnerLoop, weights: list[Tensor], trace: Trace, gradients: Tensor, d_updates: Tensor
) -> list[Tensor]:
    """Back-propagates through the rules' steps, piece by piece; see `meta_gradient`.

    The rules saw `gradients`, `[unroll + 1, size]`. `d_updates`, `[unroll, size]`, include the
    updates' effect on later parameters.
    """
    gradient_pieces = loop.partition.split(gradients)
    d_pieces = loop.partition.split(d_updates)
    parts: list[Tensor] = []
    for k, d_piece in enumerate(d_pieces):
        # One piece after the other: the executor would otherwise recall all of them at once, and
        # hold them in memory together.
        with tf.control_dependencies(parts[-1:]):
            own_gradients = tf.identity(gradient_pieces[k])
        parts.append(_back_propagate_piece(loop, weights, trace, k, own_gradients, d_piece))
    return loop.sum_by_rule(parts)


def _back_propagate_piece(
    loop: InnerLoop,
    weights: list[Tensor],
    trace: Trace,
    k: int,
    gradients: Tensor,
    d_updates: Tensor,
) -> Tensor:
    piece = loop.pieces[k]
    own_weights = weights[piece.group]
    caches, states = recall(loop, weights, trace, k, gradients)

    def body(t: Tensor, d_weights: Tensor, d_state: tuple) -> tuple:
        d_step, _, d_state = piece.rule.backward(
            own_weights,
            gradients[t],
            graph_loops.read(states, t),
            graph_loops.read(states, t + 1),
            graph_loops.read(caches, t),
            d_updates[t],
            d_state,
            with_gradient=False,
        )
        return d_weights + d_step, d_state

    start = (tf.zeros_like(own_weights), piece.rule.initial_state(piece.shape))
    return graph_loops.run_backwards(d_updates.shape[0], body, start)[0]


def suffix_sums(steps: Tensor, map_sum: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Returns the sum over each step and all later ones, `[steps, …]`.

    `map_sum` maps `(step, sum)` to the sum that counts for that step and those before.
    """

    # A loop, since `tf.cumsum` takes 20 to 80 times as long here, with XLA or without.
    def body(t: Tensor, total: Tensor, sums: tf.TensorArray) -> tuple:
        total = map_sum(t, total + steps[t])
        return total, sums.write(t, total)

    start = (tf.zeros_like(steps[0]), graph_loops.new_arrays(steps[0], steps.shape[0]))
    return graph_loops.run_backwards(steps.shape[0], body, start)[1].stack()
