"""How episodes are cut into windows, and what is minimized over a window."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from l2l_keras import arguments
from l2l_keras.meta.meta_loss import META_LOSSES, STEP_WEIGHTS
from l2l_keras.tasks.base import Task, Tensor

RANDOM_SCALES = ("coordinate", "tensor")
"""What has a random factor of its own in a reparametrization: each parameter, or each tensor."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """How episodes are cut into truncation windows, and what is minimized over a window.

    Args:
        unroll: Inner steps in a window. Defaults to 20.
        meta_loss: `"mean"` (default), `"log"`, `"log_mean"`, `"log_window"`, `"log_relative"` or
            `"relative"`; see `l2l_keras.meta.META_LOSSES`.
        step_weights: `"uniform"` (default), `"linear"` or `"final"`; see
            `l2l_keras.meta.STEP_WEIGHTS`.
        random_scale: Largest |log s| of a random reparametrization θ = s · θ' of training
            optimizees. Defaults to 0 (none).
        random_scale_of: Whether s is drawn in each episode for every parameter, `"coordinate"`
            (default), or for every `"tensor"`.
        clip_norm: Largest norm of a window's meta-gradient, or None (the default). Of windows side
            by side, one whose meta-gradient explodes then counts no more than others.
        staggered: Whether the first window of an episode begins after a random number of steps
            below `unroll`, so that windows begin anywhere. Defaults to False.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> windows = l2l_keras.meta.Windows(unroll=50, meta_loss="log")

    Source: Andrychowicz et al. (2016), section 2.1 (weights), section 3; Vicol et al. (2021)
    (staggered windows).
    """

    unroll: int = 20
    meta_loss: str = "mean"
    step_weights: str = "uniform"
    random_scale: float = 0.0
    random_scale_of: str = "coordinate"
    clip_norm: float | None = None
    staggered: bool = False

    def __post_init__(self) -> None:
        arguments.count("unroll", self.unroll)
        arguments.one_of("meta_loss", self.meta_loss, META_LOSSES)
        arguments.one_of("step_weights", self.step_weights, STEP_WEIGHTS)
        arguments.one_of("random_scale_of", self.random_scale_of, RANDOM_SCALES)
        arguments.not_negative("random_scale", self.random_scale)
        arguments.positive_or_none("clip_norm", self.clip_norm)

    def loss(self, losses: Tensor, initial: Tensor, progress: Tensor) -> Tensor:
        """Computes the scalar meta-loss of a window.

        From f(θ_t) of its steps, `[unroll, functions]`, f(θ_0), `[functions]`, and t / T of its
        steps, `[unroll]`.
        """
        weights = STEP_WEIGHTS[self.step_weights](progress)[:, None]
        return META_LOSSES[self.meta_loss](losses, initial, weights)

    def draw_scale(self, task: Task, key: Tensor) -> Tensor | None:
        """Draws the factors of a reparametrization, float32 `[size]`; None without any."""
        limit = self.random_scale
        if not limit:
            return None
        if self.random_scale_of == "coordinate":
            return tf.exp(tf.random.stateless_uniform((task.size,), key, -limit, limit))
        sizes = [math.prod(weight.shape) for weight in task.layout]
        logarithms = tf.random.stateless_uniform((len(sizes),), key, -limit, limit)
        return tf.exp(tf.repeat(logarithms, sizes))

    def clip(self, meta_gradient: list[Tensor], norm: Tensor) -> list[Tensor]:
        """Clips a meta-gradient, given its norm, to `clip_norm`."""
        if self.clip_norm is None:
            return meta_gradient
        factor = self.clip_norm / tf.maximum(norm, self.clip_norm)
        return [factor * part for part in meta_gradient]
