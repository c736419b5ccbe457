"""Estimators of the meta-gradient of a window: back-propagation, imitation and evolution."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from l2l_keras import arguments
from l2l_keras.meta import first_order, graph_loops, second_order, trace
from l2l_keras.meta.inner_loop import InnerLoop, InnerState, Steps, scaled
from l2l_keras.rules import moments
from l2l_keras.tasks.base import Nest, Tensor

MetaLoss = Callable[[Tensor], Tensor]
"""Maps the losses of a window, float32 `[unroll, functions]`, to its scalar meta-loss."""
Carry = Any
"""What an estimator keeps from one window of an episode to the next, a nest of tensors."""


class Estimator(abc.ABC):
    """Estimates the meta-gradients of an episode's windows, one after the other.

    An estimator holds settings only: one serves any number of inner loops and episodes.
    """

    @abc.abstractmethod
    def begin(self, loop: InnerLoop, inner: InnerState, key: Tensor) -> Carry:
        """Returns the carry before an episode's first window.

        Args:
            loop: The inner loop.
            inner: Its state.
            key: int32 `[2]`, the seed of the episode.
        """

    @abc.abstractmethod
    def window(
        self, loop: InnerLoop, carry: Carry, steps: Steps, meta_loss: MetaLoss, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """Computes a window and its meta-gradient.

        Args:
            loop: The inner loop.
            carry: The carry before the window.
            steps: The window's inner steps.
            meta_loss: Maps losses `[unroll, functions]` to the scalar meta-loss.
            key: int32 `[2]`, the seed of the window.

        Returns:
            `(meta_loss, meta_gradient, carry)`: a scalar; the derivatives with respect to the
            rules' trainable variables; and the carry after the window.
        """


class BackPropagation(Estimator):
    """Truncated back-propagation through time: the exact derivative of a window.

    What happened before the window counts as given. The bias grows with the effect of a window on
    later ones: small steps look better than they are.

    Args:
        second_derivatives: Whether to differentiate the optimizee's gradients too, so that the
            effect of earlier updates on later gradients counts. It costs one Hessian-vector product
            a step, tells which steps are too large, and grows without bounds if steps are. Not for
            optimizees with batch normalization, whose second derivatives TensorFlow gets wrong (its
            `tf.nn.moments` stops a gradient). Defaults to False, the paper's choice.
        clip_through_time: Whether to clip the derivative with respect to the parameters, step by
            step backwards, to the norm that it would have without second derivatives. Defaults to
            False.
        cache_bytes: Bytes of a window's rule states and caches to keep in memory. What does not fit
            is computed again, except that second derivatives need all. Defaults to 256 MiB.

    Raises:
        ValueError: If `clip_through_time` comes without `second_derivatives`.

    Example:
        >>> estimator = l2l_keras.meta.BackPropagation(second_derivatives=True)

    Source: Andrychowicz et al. (2016), section 2.
    """

    def __init__(
        self,
        second_derivatives: bool = False,
        clip_through_time: bool = False,
        cache_bytes: int = 2**28,
    ) -> None:
        if clip_through_time and not second_derivatives:
            raise ValueError(
                "`clip_through_time` clips what `second_derivatives` add: it needs them. Received: "
                f"second_derivatives={second_derivatives}, clip_through_time={clip_through_time}"
            )
        self.second_derivatives = second_derivatives
        self.clip_through_time = clip_through_time
        self.cache_bytes = cache_bytes

    def begin(self, loop: InnerLoop, inner: InnerState, key: Tensor) -> Carry:
        """See `Estimator.begin`."""
        return inner

    def window(
        self, loop: InnerLoop, carry: Carry, steps: Steps, meta_loss: MetaLoss, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """See `Estimator.window`."""
        weights, unroll = loop.pack(), steps.unroll
        optimizees: Nest = ()
        slopes: Nest = ()
        if self.second_derivatives:
            kept = len(loop.pieces)
            optimizees = graph_loops.new_arrays((carry.parameters, carry.task_state), unroll)
        else:
            kept = trace.pieces_to_keep(loop, unroll, self.cache_bytes)
        if steps.draw_held_out:
            slopes = graph_loops.new_arrays(carry.gradient, unroll)

        def take_step(t: Tensor, inner: InnerState, own: tuple) -> tuple:
            (optimizees, slopes), task_state, batch = own, inner.task_state, steps.draw(t)
            losses, inner, caches = loop.cached_step(
                weights, inner, batch, steps.scale, steps.rate_at(t), kept
            )
            if self.second_derivatives:
                optimizee = (inner.parameters, task_state)
                optimizees = graph_loops.write(optimizees, t, optimizee)
            if steps.draw_held_out:
                losses, slope = loop.held_out_loss_and_gradient(
                    inner.parameters, inner.task_state, steps.draw_held_out(t)
                )
                slopes = slopes.write(t, slope)
            return losses, inner, caches, (optimizees, slopes)

        recorded, inner, (optimizees, slopes) = trace.record(
            loop, take_step, carry, (optimizees, slopes), unroll, kept
        )
        losses = recorded.losses.stack()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(losses)
            value = meta_loss(losses)
        d_losses = tape.gradient(value, losses)
        if loop.task.functions > 1:
            d_losses = tf.repeat(d_losses, loop.task.size // loop.task.functions, axis=1)
        # Losses are of the examples that the optimizee's gradients are of, or of others.
        d_parameters = d_losses * (
            slopes.stack() if steps.draw_held_out else recorded.gradients.stack()[1:]
        )
        if self.second_derivatives:
            d_weights = second_order.meta_gradient(
                loop, weights, recorded, optimizees, d_parameters, steps, self.clip_through_time
            )
        else:
            d_weights = first_order.meta_gradient(loop, weights, recorded, d_parameters, steps)
        return value, loop.unpack(d_weights), inner


class Imitation(Estimator):
    """The derivative of the distance between a rule's updates and Adam's, which steps instead.

    A rule that already optimizes is a start for meta-training proper. The error of a window is the
    mean over its steps of the squared distance of both updates, divided by the squared norm of
    Adam's. Optimizees count as given: their trajectories are Adam's.

    Args:
        learning_rate: Adam's learning rate.
        cache_bytes: See `BackPropagation`.

    Raises:
        ValueError: If `learning_rate` is not positive.

    Example:
        >>> estimator = l2l_keras.meta.Imitation(learning_rate=0.001)

    Source: Chen et al., "Training stronger baselines for learning to optimize" (2020), has learned
    optimizers imitate hand-designed ones.
    """

    def __init__(self, learning_rate: float, cache_bytes: int = 2**28) -> None:
        self.learning_rate = arguments.positive("learning_rate", learning_rate)
        self.cache_bytes = cache_bytes

    def begin(self, loop: InnerLoop, inner: InnerState, key: Tensor) -> Carry:
        """See `Estimator.begin`; the carry holds Adam's state, too."""
        zeros, zero = tf.zeros_like(inner.parameters), tf.constant(0.0)
        return inner, (zeros, zeros, zero, zero)

    def window(
        self, loop: InnerLoop, carry: Carry, steps: Steps, meta_loss: MetaLoss, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """See `Estimator.window`; the error takes the place of `meta_loss`."""
        inner, adam_state = carry
        weights = loop.pack()
        kept = trace.pieces_to_keep(loop, steps.unroll, self.cache_bytes)

        def take_step(t: Tensor, inner: InnerState, carry: tuple) -> tuple:
            adam_state, error, d_updates = carry
            update, rule_state, caches = loop.propose(weights, inner, steps.scale, kept)
            gradient = scaled(inner.gradient, steps.scale)
            # With Keras' defaults.
            mean, rms, adam_state = moments.update(gradient, adam_state, 0.9, 0.999, epsilon=1e-7)
            adam_update = -self.learning_rate * mean / rms
            difference = update - adam_update
            weight = 1.0 / (steps.unroll * (tf.reduce_sum(tf.square(adam_update)) + 1e-30))
            error += weight * tf.reduce_sum(tf.square(difference))
            d_updates = d_updates.write(t, 2.0 * weight * difference)
            losses, inner = loop.advance(
                inner, adam_update, rule_state, steps.draw(t), steps.scale, steps.rate_at(t)
            )
            return losses, inner, caches, (adam_state, error, d_updates)

        start = (adam_state, 0.0, graph_loops.new_arrays(inner.gradient, steps.unroll))
        recorded, inner, (adam_state, error, d_updates) = trace.record(
            loop, take_step, inner, start, steps.unroll, kept
        )
        gradients = scaled(recorded.gradients.stack(), steps.scale)
        d_weights = first_order.back_propagate(
            loop, weights, recorded, gradients, d_updates.stack()
        )
        return error, loop.unpack(d_weights), (inner, adam_state)


class PersistentEvolution(Estimator):
    """Persistent evolution strategies: unbiased over all windows of an episode, and noisy.

    Pairs of inner loops run with φ + ε and φ - ε, ε ~ N(0, σ²), drawn anew for each pair and
    window. With ξ the sum of a pair's ε since the episode began, the mean over pairs of

        ξ · (L(φ + ε) - L(φ - ε)) / (2 σ²)

    is an unbiased estimate of the derivative of the window's meta-loss with respect to φ, the part
    through earlier windows included, up to terms of order σ². The variance grows with the number of
    weights and of windows.

    With `reuse_noise`, ε is drawn once for an episode, and ξ = ε: unbiased too, and often of
    less variance in long episodes of rules with many weights, since ξ does not grow.

    Args:
        pairs: Number of pairs. Defaults to 1.
        sigma: Standard deviation σ of ε. Defaults to 0.01.
        reuse_noise: Whether to draw ε once for an episode. Defaults to False.

    Raises:
        ValueError: If `pairs` or `sigma` is not positive.

    Example:
        >>> estimator = l2l_keras.meta.PersistentEvolution(pairs=4, sigma=0.02)

    Source: Vicol, Metz and Sohl-Dickstein, "Unbiased gradient estimation in unrolled computation
    graphs with persistent evolution strategies" (2021), algorithm 2, antithetic; Li et al.,
    "Variance-reduced gradient estimation via noise-reuse in online evolution strategies" (2023).
    """

    def __init__(self, pairs: int = 1, sigma: float = 0.01, reuse_noise: bool = False) -> None:
        arguments.count("pairs", pairs)
        self.pairs = pairs
        self.sigma = arguments.positive("sigma", sigma)
        self.reuse_noise = reuse_noise

    def begin(self, loop: InnerLoop, inner: InnerState, key: Tensor) -> Carry:
        """See `Estimator.begin`; the carry holds both loops' states, and ξ, of each pair."""
        weights = loop.pack()
        if self.reuse_noise:
            sums = [self._noise(weights, key, pair) for pair in range(self.pairs)]
        else:
            sums = [[tf.zeros_like(part) for part in weights]] * self.pairs
        return [([inner, inner], own) for own in sums]

    def window(
        self, loop: InnerLoop, carry: Carry, steps: Steps, meta_loss: MetaLoss, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """See `Estimator.window`."""
        weights = loop.pack()
        values, gradients, new_carry = [], [], []
        for pair, (inners, sums) in enumerate(carry):
            noise = sums if self.reuse_noise else self._noise(weights, key, pair)
            ends, losses = [], []
            for sign, inner in zip((1.0, -1.0), inners, strict=True):
                moved = [w + sign * e for w, e in zip(weights, noise, strict=True)]
                own, inner = loop.window(moved, inner, steps)
                ends.append(inner)
                losses.append(meta_loss(own))
            if not self.reuse_noise:
                sums = [s + e for s, e in zip(sums, noise, strict=True)]
            slope = (losses[0] - losses[1]) / (2.0 * self.sigma**2)
            gradients.append([slope * s for s in sums])
            values += losses
            new_carry.append((ends, sums))
        mean = [tf.add_n(parts) / self.pairs for parts in zip(*gradients, strict=True)]
        return tf.reduce_mean(values), loop.unpack(mean), new_carry

    def _noise(self, weights: list[Tensor], key: Tensor, pair: int) -> list[Tensor]:
        """Draws ε of one pair, for φ as `InnerLoop.pack` returns it."""
        noise = []
        for k, part in enumerate(weights, start=pair * len(weights)):
            own_key = tf.random.experimental.stateless_fold_in(key, k)
            noise.append(self.sigma * tf.random.stateless_normal(part.shape, own_key))
        return noise
