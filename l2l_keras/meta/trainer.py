"""Meta-training as a Keras model: compile, fit, callbacks."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2l_keras import arguments, parameter_groups
from l2l_keras.meta import schedule
from l2l_keras.meta.episode import Episode, Programs
from l2l_keras.meta.estimators import BackPropagation, Estimator
from l2l_keras.meta.inner_loop import InnerLoop
from l2l_keras.meta.validation import MEANS, MeanOfAny, Validation
from l2l_keras.meta.windows import Windows
from l2l_keras.rules import UpdateRule
from l2l_keras.schedules import SCHEDULES
from l2l_keras.tasks.base import Task, Tensor
from l2l_keras.tasks.mixture import Mixture, as_mixture

META_LOSS_ON = ("training", "validation")
"""Examples that meta-losses are of."""


class MetaModel(keras.Model):
    """Meta-trains an update rule on a task, or on a mixture of tasks.

    An episode is `horizon` inner steps of one optimizee, drawn afresh. It is cut into truncation
    windows (see `Windows`); the next window continues where the last one ended. One training step
    computes a window of each of `parallel` optimizees, side by side, and takes one step of the
    meta-optimizer on φ along the mean of their meta-gradients. A window whose meta-gradient is not
    finite is left out and counted in `skipped`.

    In a mixture, every member has as many optimizees under way as any other, one or more, and
    training steps take turns, so that members contribute equal numbers of windows.

    All state is in the model's variables, and every draw follows from `seed` and the episode's
    number: a run that was backed up (see `Backup`) resumes to the same weights, bit for bit, as one
    that was not interrupted.

    Compile with a Keras optimizer for φ, such as `keras.optimizers.Adam(1e-3, global_clipnorm=1)`:
    its `global_clipnorm` clips the meta-gradient. With its `use_ema`, and
    `keras.callbacks.SwapEMAWeights` after `KeepBest`, averaged weights are validated and kept.

    Args:
        rule: The update rule to train; or several, one for each of a task's parameter groups, as a
            dictionary `{pattern: rule}` (see `LearnedOptimizer`).
        task: The task family to train it on, or an `l2l_keras.tasks.Mixture`.
        horizon: Inner steps in an episode; or `(shortest, longest)`, between which each episode's
            is drawn, its logarithm uniformly. Validation episodes have the longest. Defaults
            to 100.
        estimator: How meta-gradients are estimated. Defaults to
            `l2l_keras.meta.BackPropagation()`.
        windows: How episodes are cut, and what is minimized over a window. Its `unroll` must divide
            `horizon`. Defaults to `l2l_keras.meta.Windows()`.
        parallel: Optimizees side by side in a training step. Defaults to 1.
        optimizees: Number of training optimizees, which come again with other minibatches; or None
            (the default), for a fresh one in each episode.
        seed: Seed of every draw, an integer from 0 to 2**29 - 1. Defaults to 0.
        meta_loss_on: `"training"` (the default), for meta-losses of the minibatches that optimizees
            train on; or `"validation"`, for those of minibatches that the task holds out of their
            training: the rule then learns to lower the loss on unseen examples.
        schedule: How the learning rate that multiplies a rule's updates changes in an episode:
            `"constant"` (the default), 1; or `"cosine"`, from 1 to 0, as that of
            `keras.optimizers.schedules.CosineDecay(1.0, horizon)`. To be used in the same way.

    Attributes:
        longest_horizon: Inner steps of the longest training episodes that begin from now on, an
            integer variable (see `Curriculum`).
        skipped: Number of windows that were left out so far, an integer variable.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(preprocessing="none", seed=0)
        >>> task = l2l_keras.tasks.Quadratic(functions=8)
        >>> meta_model = l2l_keras.meta.MetaModel(rule, task)
        >>> meta_model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0))
        >>> history = meta_model.fit(epochs=1, windows=10, validation_episodes=2, verbose=0)
        >>> sorted(history.history)
        ['loss', 'skipped', 'val_final_loss', 'val_loss']

    Source: Andrychowicz et al. (2016), sections 2 and 3; truncated back-propagation through time.
    Mixtures, logarithms and horizons as in Metz et al., "Understanding and correcting pathologies
    in the training of learned optimizers" (2019).
    """

    def __init__(
        self,
        rule: UpdateRule | Mapping[str, UpdateRule],
        task: Task | Mixture,
        horizon: int | Sequence[int] = 100,
        estimator: Estimator | None = None,
        windows: Windows | None = None,
        parallel: int = 1,
        optimizees: int | None = None,
        seed: int = 0,
        meta_loss_on: str = "training",
        schedule: str = "constant",
    ) -> None:
        super().__init__(name="meta_model")
        arguments.one_of("meta_loss_on", meta_loss_on, META_LOSS_ON)
        arguments.one_of("schedule", schedule, tuple(SCHEDULES))
        windows, estimator = windows or Windows(), estimator or BackPropagation()
        horizons = (horizon, horizon) if isinstance(horizon, int) else tuple(horizon)
        in_order = len(horizons) == 2 and 1 <= horizons[0] <= horizons[1]
        if not in_order or any(h % windows.unroll for h in horizons):
            raise ValueError(
                "`horizon` must be a positive multiple of `unroll`, or two of them in order. "
                f"Received: horizon={horizon}, unroll={windows.unroll}"
            )
        whole = optimizees is None or optimizees >= 1
        arguments.check(whole, "optimizees", "positive or None", optimizees)
        arguments.count("parallel", parallel)
        arguments.seed("seed", seed)
        self.rule = rule
        self.task = task
        self.horizons = horizons
        self.windows = windows
        self.parallel = parallel
        self.meta_loss_on = meta_loss_on
        self.schedule = schedule
        self.optimizees = optimizees
        self.seed = seed
        # Seeds of episodes: room for 2**20 episodes with each of 2**9 seeds.
        self._first_seed = (seed % 2**9) * 2**20
        self._rule_variables = [
            v for r in parameter_groups.only_rules(rule) for v in r.trainable_variables
        ]
        mixture = as_mixture(task)
        members = list(mixture.members.values())
        on_held_out = meta_loss_on == "validation"
        if on_held_out and not all(t.holds_out for t in members):
            raise ValueError(
                'meta_loss_on="validation" needs tasks that hold examples out, such as a KerasTask '
                f"with one data set. Received: {[t.name for t in members if not t.holds_out]}"
            )
        loops = {t: InnerLoop(rule, t) for t in {*members, *mixture.validation.values()}}
        rate = SCHEDULES[schedule]
        self._validation = [
            Validation(loops[t], self.horizons[1], rate) for t in mixture.validation.values()
        ]
        make = functools.partial(self.add_weight, initializer="zeros", trainable=False)
        programs = {t: Programs(loops[t], estimator, windows, on_held_out, rate) for t in members}
        self._episodes = [
            Episode(programs[t], functools.partial(make, name="episode"))
            for _ in range(math.ceil(parallel / len(members)))
            for t in members
        ]
        self._jit_compile = all(t.jit_compile for t in members)
        self.longest_horizon = make(shape=(), dtype="int32", name="longest_horizon")
        self.longest_horizon.assign(self.horizons[1])
        self._turn = make(shape=(), dtype="int32", name="turn")
        self._begun = make(shape=(), dtype="int32", name="begun")
        self.skipped = make(shape=(), dtype="int32", name="skipped")
        self._loss_metric = MeanOfAny(name="loss")
        mean = MEANS[mixture.validation_mean]
        losses = {name: mean(name=name) for name in ("loss", "final_loss", "held_out_loss")}
        names = set.intersection(*(set(v.names) for v in self._validation))
        self._validation_metrics = {
            name: losses.get(name) or keras.metrics.Mean(name=name) for name in sorted(names)
        }
        self.built = True

    def __repr__(self) -> str:
        shortest, longest = self.horizons
        horizon = longest if shortest == longest else self.horizons
        rules = parameter_groups.summary(self.rule)
        return f"<MetaModel of {rules} on {self.task.name!r}, horizon={horizon}>"

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that are reset at every epoch."""
        return [self._loss_metric, *self._validation_metrics.values()]

    def compile(self, optimizer: Any = "adam", **kwargs: Any) -> None:
        """Configures meta-training.

        Args:
            optimizer: The Keras optimizer of φ. Defaults to `"adam"`.
            **kwargs: Passed on to `keras.Model.compile`.
        """
        # Windows are compiled one by one; drawing a fresh optimizee is plain Python.
        super().compile(optimizer=optimizer, run_eagerly=True, **kwargs)
        self.optimizer.build(self._rule_variables)
        # If steps are quick, one kernel instead of a hundred small ones.
        self._apply = tf.function(
            self._apply_windows, jit_compile=self._jit_compile, autograph=False
        )

    def fit(  # type: ignore[override]
        self, epochs: int = 1, windows: int = 100, validation_episodes: int = 10, **kwargs: Any
    ) -> keras.callbacks.History:
        """Meta-trains the rule, or rules.

        Args:
            epochs: Number of epochs, each followed by a validation. Defaults to 1.
            windows: Training steps in an epoch, of `parallel` windows each. Defaults to 100.
            validation_episodes: Validation optimizees of each task, the same ones after every
                epoch. Defaults to 10.
            **kwargs: Passed on to `keras.Model.fit`, such as `callbacks` and `verbose`.

        Returns:
            Keras' history: the mean meta-loss (`loss`), the number of skipped windows, and on
            validation optimizees the mean training loss of an episode (`val_loss`) and that of its
            last tenth (`val_final_loss`); where tasks hold examples out, also the loss at the end
            of an episode on these (`val_held_out_loss`) and the metrics that all models are
            compiled with (such as `val_held_out_accuracy`). The mixture says how losses are
            averaged.
        """
        validation = tf.data.Dataset.range(validation_episodes) if validation_episodes else None
        return super().fit(
            tf.data.Dataset.range(windows),
            epochs=epochs,
            validation_data=validation,
            shuffle=False,
            **kwargs,
        )

    def windows_of(self, episodes: int) -> int:
        """Returns how many training steps take about so many episodes, for `fit`."""
        steps = episodes * schedule.mean_horizon(*self.horizons)
        return max(1, round(steps / self.windows.unroll / self.parallel))

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """Computes truncation windows, and one meta-update; optimizees come from the task."""
        results = []
        first = int(self._turn) * self.parallel
        for turn in range(first, first + self.parallel):
            episode = self._episodes[schedule.member(self.seed, turn, len(self._episodes))]
            if episode.over:
                self._begin(episode)
            results.append(episode.window())
        self._turn.assign_add(1)
        values, finite, meta_gradients = zip(*results, strict=True)
        self._apply(values, finite, meta_gradients)
        return {"loss": self._loss_metric.result(), "skipped": tf.identity(self.skipped.value)}

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Optimizes the validation optimizee of each task with seed `data`, with φ frozen."""
        for validation in self._validation:
            results = validation(int(data))
            for name, metric in self._validation_metrics.items():
                metric.update_state(results[name])
        return {name: metric.result() for name, metric in self._validation_metrics.items()}

    def _begin(self, episode: Episode) -> None:
        """Begins the next episode."""
        number = int(self._begun)
        self._begun.assign_add(1)
        optimizee = number % self.optimizees if self.optimizees else number
        longest = int(self.longest_horizon)
        episode.begin(
            self._first_seed + optimizee,
            self._first_seed + number,
            schedule.horizon(self.seed, number, self.horizons[0], longest, self.windows.unroll),
        )

    def _apply_windows(
        self,
        values: Sequence[Tensor],
        finite: Sequence[Tensor],
        meta_gradients: Sequence[Sequence[Tensor]],
    ) -> None:
        """Applies the mean meta-gradient of the windows that are finite."""
        weights = [tf.cast(ok, "float32") for ok in finite]
        count = tf.add_n(weights)
        self.skipped.assign_add(len(weights) - tf.cast(count, "int32"))

        def mean(tensors: Sequence[Tensor]) -> Tensor:
            kept = [tf.where(ok, t, 0.0) for ok, t in zip(finite, tensors, strict=True)]
            return tf.add_n(kept) / tf.maximum(count, 1.0)

        def apply() -> None:
            gradient = [mean(parts) for parts in zip(*meta_gradients, strict=True)]
            self.optimizer.apply(gradient, self._rule_variables)
            self._loss_metric.update_state(mean(values), sample_weight=count)

        tf.cond(count > 0.0, apply, lambda: None)
