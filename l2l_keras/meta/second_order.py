"""Meta-gradients with second derivatives: earlier updates change later gradients.

With λ_t = ∂L/∂θ_t, H_t the Hessian of the optimizee at θ_t, and d_t the derivative of the meta-loss
with respect to the gradient that the rule saw there, going backwards,

    λ_t = λ_{t+1} + ∂L/∂f_t · ∇f(θ_t) + H_t · d_t,

and ∂L/∂u_{t-1} = r_{t-1} · λ_t, where r_{t-1} is the learning rate. That is one Hessian-vector
product a step. The optimizee's state, such as the averages of batch normalization, counts as given.
"""

from __future__ import annotations

import tensorflow as tf

from l2l_keras.meta import graph_loops
from l2l_keras.meta.inner_loop import InnerLoop, Steps, scaled
from l2l_keras.meta.trace import Trace
from l2l_keras.tasks.base import Nest, Tensor


def meta_gradient(
    loop: InnerLoop,
    weights: list[Tensor],
    trace: Trace,
    optimizees: Nest,
    d_parameters: Tensor,
    steps: Steps,
    clip_through_time: bool,
) -> list[Tensor]:
    """Computes the whole meta-gradient of a window, one vector for each rule.

    The trace has the caches and states of all pieces; `optimizees` are arrays of θ_t after every
    step, and of the optimizee's state before its loss. With `clip_through_time`, λ_t is clipped to
    the norm that it would have without second derivatives. `d_parameters`: see `first_order`.
    """
    read = graph_loops.read
    gradients = loop.partition.split(scaled(trace.gradients.stack(), steps.scale))

    def body(
        t: Tensor,
        d_weights: list,
        first_order: Tensor,
        derivative: Tensor,
        d_gradient: Tensor,
        d_states: list,
    ) -> tuple:
        # `d_gradient` is that of ∇f(θ_{t+1}), which the next step used.
        parameters, task_state = read(optimizees, t)
        derivative += d_parameters[t]
        derivative += loop.hessian_vector_product(parameters, task_state, steps.draw(t), d_gradient)
        if clip_through_time:
            first_order += d_parameters[t]
            derivative, d_states = clip(first_order, derivative, d_states)
        unconstrained = read(trace.unconstrained, t)
        derivative, first_order = (
            loop.before_constraints(unconstrained, own, None) for own in (derivative, first_order)
        )
        d_updates = scaled(scaled(derivative, steps.scale), steps.rate_at(t))
        d_updates = loop.partition.split(d_updates)
        parts, d_gradients, new_d_states = [], [], []
        for k, piece in enumerate(loop.pieces):
            d_step, d_piece, d_state = piece.rule.backward(
                weights[piece.group],
                gradients[k][t],
                read(trace.states[k], t),
                read(trace.states[k], t + 1),
                read(trace.caches[k], t),
                d_updates[k],
                d_states[k],
                with_gradient=True,
            )
            parts.append(d_step)
            d_gradients.append(d_piece)
            new_d_states.append(d_state)
        d_gradient = scaled(loop.partition.join(d_gradients), steps.scale)
        d_weights = [d + part for d, part in zip(d_weights, loop.sum_by_rule(parts), strict=True)]
        return d_weights, first_order, derivative, d_gradient, new_d_states

    zeros = tf.zeros((loop.task.size,))
    start = ([tf.zeros_like(w) for w in weights], zeros, zeros, zeros, loop.initial_states())
    return graph_loops.run_backwards(steps.unroll, body, start)[0]


def clip(first_order: Tensor, derivative: Tensor, rest: Nest) -> tuple[Tensor, Nest]:
    """Clips a derivative to the norm of the first-order one, and scales other derivatives alike.

    The first-order one replaces a derivative that is not finite; others become zero.
    """
    largest, norm = tf.norm(first_order), tf.norm(derivative)
    finite = tf.math.is_finite(norm)
    factor = tf.where(finite, tf.math.divide_no_nan(largest, tf.maximum(norm, largest)), 0.0)
    clipped = tf.where(finite, factor * derivative, first_order)
    return clipped, tf.nest.map_structure(
        lambda part: tf.where(tf.math.is_finite(part), factor * part, 0.0), rest
    )
