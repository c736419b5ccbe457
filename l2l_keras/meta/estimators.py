"""How the meta-gradient of a window is estimated: by back-propagation, or by evolution."""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf

from l2l_keras.meta.inner_loop import Draw, InnerLoop, MetaLoss
from l2l_keras.rules import moments
from l2l_keras.tasks.base import Tensor

Carry = Any
"""What an estimator keeps from one window of an episode to the next, a nest of tensors."""


class Estimator(abc.ABC):
    """Estimates the meta-gradients of an episode's windows, one after the other.

    Args:
        loop: The inner loop of the rule on a task.
        unroll: Inner steps in a window.
    """

    def __init__(self, loop: InnerLoop, unroll: int) -> None:
        self._loop = loop
        self._unroll = unroll

    @abc.abstractmethod
    def begin(self, inner: Any, key: Tensor) -> Carry:
        """Returns what there is before the first window.

        Args:
            inner: Where the inner loop stands.
            key: int32 `[2]`, a seed of what is random in the episode.
        """

    @abc.abstractmethod
    def window(
        self, carry: Carry, draw: Draw, meta_loss: MetaLoss, scale: Tensor | None, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """Computes a window and its meta-gradient.

        Args:
            carry: What is there before the window.
            draw: As in `InnerLoop.meta_gradient`.
            meta_loss: As in `InnerLoop.meta_gradient`.
            scale: As in `InnerLoop.step`.
            key: int32 `[2]`, a seed of what is random in the window.

        Returns:
            `(meta_loss, meta_gradient, carry)`: a scalar; the derivatives with respect to the
            rules' trainable variables; and what is there after the window.
        """


class Truncated(Estimator):
    """The exact derivative of a window, with what was before taken as given.

    Its bias grows with what a window does to later ones: small steps look better than they are.

    Args:
        loop: The inner loop of the rule on a task.
        unroll: Inner steps in a window.
        second_derivatives: See `InnerLoop.meta_gradient`.
        clip_through_time: See `InnerLoop.meta_gradient`. Defaults to False.

    Source: Andrychowicz et al. (2016), section 2: truncated back-propagation through time.
    """

    def __init__(
        self,
        loop: InnerLoop,
        unroll: int,
        second_derivatives: bool,
        clip_through_time: bool = False,
    ) -> None:
        super().__init__(loop, unroll)
        self._derivatives = second_derivatives, clip_through_time

    def begin(self, inner: Any, key: Tensor) -> Carry:
        """Returns where the inner loop stands; see `Estimator.begin`."""
        del key
        return inner

    def window(
        self, carry: Carry, draw: Draw, meta_loss: MetaLoss, scale: Tensor | None, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """Computes a window and its meta-gradient; see `Estimator.window`."""
        del key
        value, meta_gradient, _, carry = self._loop.meta_gradient(
            carry, draw, self._unroll, meta_loss, scale, *self._derivatives
        )
        return value, meta_gradient, carry


class Imitation(Estimator):
    """The derivative of how far a rule's updates are from Adam's, which steps in its place.

    A rule that begins as an optimizer of some use is meta-trained from there in earnest. What is
    minimised is the mean over steps of the squared distance of both updates, over the square of
    the norm of Adam's. Optimizees count as given: their trajectories are Adam's.

    Args:
        loop: The inner loop of the rule on a task.
        unroll: Inner steps in a window.
        learning_rate: Adam's learning rate.

    Source: Chen et al., "Training stronger baselines for learning to optimize" (2020), has learned
    optimizers imitate hand-designed ones.
    """

    def __init__(self, loop: InnerLoop, unroll: int, learning_rate: float) -> None:
        super().__init__(loop, unroll)
        self._learning_rate = learning_rate

    def begin(self, inner: Any, key: Tensor) -> Carry:
        """Returns where the loop and Adam stand; see `Estimator.begin`."""
        del key
        zeros, zero = tf.zeros_like(inner.parameters), tf.constant(0.0)
        return inner, (zeros, zeros, zero, zero)

    def window(
        self, carry: Carry, draw: Draw, meta_loss: MetaLoss, scale: Tensor | None, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """Computes a window and its derivative, `meta_loss` left aside; see `Estimator.window`."""
        del meta_loss, key
        inner, adam_state = carry
        error, derivative, inner, adam_state = self._loop.imitation(
            inner, self._adam, adam_state, draw, self._unroll, scale
        )
        return error, derivative, (inner, adam_state)

    def _adam(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Computes Adam's update, with Keras' defaults."""
        mean, usual, state = moments.update(gradient, state, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
        return -self._learning_rate * mean / usual, state


class PersistentEvolution(Estimator):
    """Persistent evolution strategies: unbiased over all windows of an episode, and noisy.

    Pairs of inner loops run with φ + ε and φ - ε, ε ~ N(0, σ²) drawn anew for each pair and window.
    With ξ the sum of a pair's ε since the episode began, the mean over pairs of

        ξ · (L(φ + ε) - L(φ - ε)) / (2 σ²)

    is an unbiased estimate of how the window's meta-loss changes with φ, the part through earlier
    windows included, but for terms of order σ². The variance grows with the number of weights and
    of windows.

    Or ε is drawn once for an episode, and ξ = ε: this is unbiased too, and often of less variance
    in long episodes of rules with many weights, since ξ does not grow.

    Args:
        loop: The inner loop of the rule on a task.
        unroll: Inner steps in a window.
        pairs: Number of pairs.
        sigma: Standard deviation σ of ε.
        reuse_noise: Whether ε is drawn once for an episode. Defaults to False.

    Source: Vicol, Metz and Sohl-Dickstein, "Unbiased gradient estimation in unrolled computation
    graphs with persistent evolution strategies" (2021), algorithm 2, antithetic; Li et al.,
    "Variance-reduced gradient estimation via noise-reuse in online evolution strategies" (2023).
    """

    def __init__(
        self, loop: InnerLoop, unroll: int, pairs: int, sigma: float, reuse_noise: bool = False
    ) -> None:
        super().__init__(loop, unroll)
        self._pairs = pairs
        self._sigma = sigma
        self._reuse_noise = reuse_noise

    def begin(self, inner: Any, key: Tensor) -> Carry:
        """Returns where each loop stands, and ξ, for each pair; see `Estimator.begin`."""
        weights = self._loop.pack()
        if self._reuse_noise:
            sums = [self._noise(weights, key, pair) for pair in range(self._pairs)]
        else:
            sums = [[tf.zeros_like(part) for part in weights]] * self._pairs
        return [([inner, inner], own) for own in sums]

    def window(
        self, carry: Carry, draw: Draw, meta_loss: MetaLoss, scale: Tensor | None, key: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        """Computes a window and its meta-gradient; see `Estimator.window`."""
        weights = self._loop.pack()
        values, gradients, new_carry = [], [], []
        for pair, (inners, sums) in enumerate(carry):
            noise = sums if self._reuse_noise else self._noise(weights, key, pair)
            ends, losses = [], []
            for sign, inner in zip((1.0, -1.0), inners, strict=True):
                moved = [w + sign * e for w, e in zip(weights, noise, strict=True)]
                own, inner = self._loop.window(moved, inner, draw, self._unroll, scale)
                ends.append(inner)
                losses.append(meta_loss(own))
            if not self._reuse_noise:
                sums = [s + e for s, e in zip(sums, noise, strict=True)]
            slope = (losses[0] - losses[1]) / (2.0 * self._sigma**2)
            gradients.append([slope * s for s in sums])
            values += losses
            new_carry.append((ends, sums))
        mean = [tf.add_n(parts) / self._pairs for parts in zip(*gradients, strict=True)]
        return tf.reduce_mean(values), self._loop.unpack(mean), new_carry

    def _noise(self, weights: list[Tensor], key: Tensor, pair: int) -> list[Tensor]:
        """Draws ε of one pair, for weights as `InnerLoop.pack` returns them."""
        keys = [
            tf.random.experimental.stateless_fold_in(key, pair * len(weights) + k)
            for k in range(len(weights))
        ]
        return [
            self._sigma * tf.random.stateless_normal(part.shape, own)
            for part, own in zip(weights, keys, strict=True)
        ]
