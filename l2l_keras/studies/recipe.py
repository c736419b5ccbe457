"""How a preset is specialised: settings that were found on validation tasks."""

from __future__ import annotations

from typing import NamedTuple

import keras

from l2l_keras import meta, presets
from l2l_keras.tasks import Task


class Recipe(NamedTuple):
    """Settings of meta-training that starts from a preset, named as flags of `l2l-meta-train`.

    Evolution strategies see the end of a run, where back-propagation through windows makes greedy
    rules; the loss that counts is that of examples held out; and learning rates fall to zero, which
    a rule alone is slow to learn.

    Attributes:
        unroll: Steps of a window.
        episodes: Episodes of an epoch.
        validation_episodes: Validation optimizees after every epoch.
        parallel: Windows whose meta-gradients a meta-update averages.
        schedule: How the learning rate changes during an episode.
        pes_pairs: Pairs of inner loops; see `l2l_keras.meta.PersistentEvolution`.
        pes_reuse_noise: Whether they keep their noise for a whole episode.
        meta_loss: Meta-loss of a window; see `l2l_keras.meta.Windows`.
        meta_loss_on: Examples that the meta-loss is of; see `l2l_keras.meta.MetaModel`.
        step_weights: Weights of the steps in it.
        staggered: Whether windows begin at different steps of episodes.
        window_clip: Largest norm of the meta-gradient of one window.
        meta_learning_rate: First learning rate of meta-training.
        backtrack: Whether it is cut when validation is much worse; see
            `l2l_keras.meta.Backtrack`.
        meta_clip: Largest norm of the mean meta-gradient.
        ema_momentum: Momentum of the moving average of the rule's weights.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(functions=4)
        >>> recipe = l2l_keras.studies.Recipe.of(task, steps=100)
        >>> rule = l2l_keras.rules.RNNprop(units=(4,), seed=0)
        >>> recipe.meta_model(rule, task, steps=100)
        <MetaModel of RNNprop on 'quadratic', horizon=100>

    Source: docs/research, 2026-11-30.
    """

    unroll: int = 20
    episodes: int = 4
    validation_episodes: int = 8
    parallel: int = 2
    schedule: str = "cosine"
    pes_pairs: int = 4
    pes_reuse_noise: bool = True
    meta_loss: str = "log_relative"
    meta_loss_on: str = "validation"
    step_weights: str = "linear"
    staggered: bool = True
    window_clip: float = 50.0
    meta_learning_rate: float = 0.01
    backtrack: bool = True
    meta_clip: float = 1.0
    ema_momentum: float = 0.98

    @classmethod
    def of(cls, task: Task, steps: int) -> Recipe:
        """Returns the settings for runs of so many updates on a task."""
        unroll = next(k for k in range(min(cls().unroll, steps), 0, -1) if not steps % k)
        return cls(unroll=unroll, meta_loss_on="validation" if task.holds_out else "training")

    def meta_model(self, rule: presets.Rules, task: Task, steps: int) -> meta.MetaModel:
        """Returns a `MetaModel`, which is still to be compiled."""
        return meta.MetaModel(
            rule,
            task,
            horizon=steps,
            estimator=meta.PersistentEvolution(self.pes_pairs, reuse_noise=self.pes_reuse_noise),
            windows=meta.Windows(
                unroll=self.unroll,
                meta_loss=self.meta_loss,
                step_weights=self.step_weights,
                clip_norm=self.window_clip,
                staggered=self.staggered,
            ),
            parallel=self.parallel,
            meta_loss_on=self.meta_loss_on,
            schedule=self.schedule,
        )

    def meta_optimizer(self, updates: int, backtrack: meta.Backtrack) -> keras.optimizers.Adam:
        """Returns the meta-optimizer for so many meta-updates, whose rate the callback cuts."""
        rate, clip, momentum = self.meta_learning_rate, self.meta_clip, self.ema_momentum
        return meta.adam(rate, updates, clip, momentum, backtrack.factor)
