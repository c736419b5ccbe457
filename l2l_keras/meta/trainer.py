"""Meta-training as a Keras model: compile, fit, callbacks."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2l_keras import parameter_groups
from l2l_keras.meta.episode import RANDOM_SCALES, Episode, Windows
from l2l_keras.meta.estimators import Estimator, Imitation, PersistentEvolution, Truncated
from l2l_keras.meta.inner_loop import InnerLoop
from l2l_keras.meta.meta_loss import META_LOSSES, STEP_WEIGHTS, window_loss
from l2l_keras.meta.validation import GeometricMean, Validation
from l2l_keras.rules import UpdateRule
from l2l_keras.tasks.base import Task, Tensor
from l2l_keras.tasks.mixture import Mixture


class MetaModel(keras.Model):
    """Meta-trains an update rule on a task, or on a mixture of tasks.

    An episode is `horizon` inner steps of one optimizee, drawn afresh. It is cut into truncation
    windows of `unroll` inner steps; the next window goes on where the last one ended. One training
    step computes a window of each of `parallel` optimizees side by side, and takes one step of the
    meta-optimizer on φ along the mean of their meta-gradients. A window whose meta-gradient is not
    finite does not count, is counted in `skipped`, and ends its episode.

    Of a mixture, each member has an optimizee at any time, or several, and training steps take
    turns: as many windows are those of one member as of another.

    Everything that changes is in the model's variables, and every draw follows from `seed` and the
    episode's number: a run that was backed up resumes to the same weights as one that was not
    interrupted. The best weights by validation are kept in `best_weights` (see `KeepBest`).

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
        unroll: Inner steps in a window, a divisor of `horizon`. Defaults to 20.
        parallel: Optimizees side by side in a training step. Defaults to 1.
        optimizees: How many training optimizees there are, each of which comes again with other
            minibatches; or None (the default), for a fresh one in each episode.
        meta_loss: `"mean"` (default), `"log"`, `"log_mean"`, `"log_window"`, `"log_relative"` or
            `"relative"`; see `l2l_keras.meta.META_LOSSES`.
        step_weights: `"uniform"` (default), `"linear"` or `"final"`; see
            `l2l_keras.meta.STEP_WEIGHTS`.
        random_scale: Largest |log s| of a random reparametrisation θ = s·θ', in training only.
            Defaults to 0 (none).
        random_scale_of: Whether s is drawn for each `"coordinate"` (default) and episode, or for
            each `"tensor"`.
        window_clip: Largest norm of a window's meta-gradient, or None (the default). Of windows
            side by side, one whose meta-gradient explodes then counts no more than others.
        staggered: Whether the first window of an episode begins after a random number of steps
            below `unroll`, so that windows begin anywhere. Defaults to False.
        second_derivatives: Whether to differentiate the optimizee's gradients too, which costs one
            Hessian-vector product a step and keeps all of a window's activations. Worth most
            with a long `unroll`. Not for optimizees with batch normalisation, whose second
            derivatives TensorFlow gets wrong (its `tf.nn.moments` stops a gradient). Defaults to
            False, the paper's choice.
        clip_through_time: Whether to keep second derivatives from growing without bounds in long
            windows; see `l2l_keras.meta.InnerLoop.meta_gradient`. Defaults to False.
        pes_pairs: If not 0 (the default), meta-gradients are estimated by persistent evolution
            strategies with so many pairs of inner loops instead of by back-propagation; see
            `l2l_keras.meta.PersistentEvolution`.
        pes_sigma: Standard deviation of what φ is moved by there. Defaults to 0.01.
        pes_reuse_noise: Whether φ is moved by the same in all windows of an episode. Defaults to
            False.
        imitated_rate: If set, the rule is not meta-trained to minimise losses but to do what Adam
            does at this learning rate, as a start; see `l2l_keras.meta.Imitation`. Defaults to
            None.
        seed: Seed of every draw, a non-negative integer. Defaults to 0.
        chunk_size: See `InnerLoop`.
        cache_bytes: See `InnerLoop`.

    Attributes:
        longest_horizon: Inner steps of the longest training episodes that begin from now on, an
            integer variable (see `Curriculum`).

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
    in the training of learned optimizers" (2019); staggered windows as in Vicol et al. (2021).
    """

    def __init__(
        self,
        rule: UpdateRule | Mapping[str, UpdateRule],
        task: Task | Mixture,
        horizon: int | Sequence[int] = 100,
        unroll: int = 20,
        parallel: int = 1,
        optimizees: int | None = None,
        meta_loss: str = "mean",
        step_weights: str = "uniform",
        random_scale: float = 0.0,
        random_scale_of: str = "coordinate",
        window_clip: float | None = None,
        staggered: bool = False,
        second_derivatives: bool = False,
        clip_through_time: bool = False,
        pes_pairs: int = 0,
        pes_sigma: float = 0.01,
        pes_reuse_noise: bool = False,
        imitated_rate: float | None = None,
        seed: int = 0,
        chunk_size: int = 4096,
        cache_bytes: int = 2**27,
    ) -> None:
        super().__init__(name="meta_model")
        horizons = (horizon, horizon) if isinstance(horizon, int) else tuple(horizon)
        if (
            unroll < 1
            or len(horizons) != 2
            or not 1 <= horizons[0] <= horizons[1]
            or any(h % unroll for h in horizons)
        ):
            raise ValueError(
                "`horizon` must be a positive multiple of `unroll`, or two of them in order. "
                f"Received: horizon={horizon}, unroll={unroll}"
            )
        for argument, value, known in (
            ("meta_loss", meta_loss, META_LOSSES),
            ("step_weights", step_weights, STEP_WEIGHTS),
            ("random_scale_of", random_scale_of, RANDOM_SCALES),
        ):
            if value not in known:
                raise ValueError(
                    f"`{argument}` must be one of {sorted(known)}. Received: {value!r}"
                )
        if random_scale < 0.0:
            raise ValueError(f"`random_scale` must not be negative. Received: {random_scale}")
        if pes_pairs < 0 or not pes_sigma > 0.0:
            raise ValueError(
                "`pes_pairs` must not be negative, and `pes_sigma` must be positive. "
                f"Received: pes_pairs={pes_pairs}, pes_sigma={pes_sigma}"
            )
        if pes_reuse_noise and not pes_pairs:
            raise ValueError("`pes_reuse_noise` says how `pes_pairs` are moved: it needs some.")
        if pes_pairs and second_derivatives:
            raise ValueError("`second_derivatives` are those of back-propagation, not of PES.")
        if imitated_rate is not None and not imitated_rate > 0.0:
            raise ValueError(f"`imitated_rate` must be positive or None. Received: {imitated_rate}")
        if imitated_rate is not None and (pes_pairs or second_derivatives):
            raise ValueError(
                "`imitated_rate` leaves nothing for `pes_pairs` or `second_derivatives` to do."
            )
        if clip_through_time and not second_derivatives:
            raise ValueError("`clip_through_time` clips what comes of `second_derivatives`.")
        if optimizees is not None and optimizees < 1:
            raise ValueError(f"`optimizees` must be positive or None. Received: {optimizees}")
        if window_clip is not None and not window_clip > 0.0:
            raise ValueError(f"`window_clip` must be positive or None. Received: {window_clip}")
        if parallel < 1:
            raise ValueError(f"`parallel` must be positive. Received: {parallel}")
        if not 0 <= seed < 2**29:
            raise ValueError(f"`seed` must be an integer from 0 to 2**29 - 1. Received: {seed}")
        self.rule = rule
        self.task = task
        self.horizons = horizons
        self.parallel = parallel
        self.optimizees = optimizees
        self.seed = seed
        self._rule_weights = parameter_groups.weights(rule)
        self._rule_variables = [
            v for r in parameter_groups.only_rules(rule) for v in r.trainable_variables
        ]
        # Seeds of episodes: room for 2**20 episodes with each of 2**9 seeds.
        self._first_seed = (seed % 2**9) * 2**20
        mixture = task if isinstance(task, Mixture) else Mixture({task.name: task})
        loops = {
            t: InnerLoop(rule, t, chunk_size, cache_bytes)
            for t in {*mixture.members.values(), *mixture.validation.values()}
        }
        self._validation = [
            Validation(loops[t], self.horizons[1]) for t in mixture.validation.values()
        ]
        windows = Windows(
            unroll,
            functools.partial(window_loss, meta_loss, step_weights),
            random_scale,
            random_scale_of,
            window_clip,
            staggered,
        )

        def estimator(loop: InnerLoop) -> Estimator:
            if imitated_rate is not None:
                return Imitation(loop, unroll, imitated_rate)
            if pes_pairs:
                return PersistentEvolution(loop, unroll, pes_pairs, pes_sigma, pes_reuse_noise)
            return Truncated(loop, unroll, second_derivatives, clip_through_time)

        make = functools.partial(self.add_weight, initializer="zeros", trainable=False)
        members = list(mixture.members.values())
        self._episodes = [
            Episode(loops[t], estimator(loops[t]), windows, functools.partial(make, name="episode"))
            for _ in range(math.ceil(parallel / len(members)))
            for t in members
        ]
        self._jit_compile = all(t.jit_compile for t in members)
        self.longest_horizon = make(shape=(), dtype="int32", name="longest_horizon")
        self.longest_horizon.assign(self.horizons[1])
        self.waited = make(shape=(), dtype="int32", name="waited")
        self._turn = make(shape=(), dtype="int32", name="turn")
        self._begun = make(shape=(), dtype="int32", name="begun")
        self.skipped = make(shape=(), dtype="int32", name="skipped")
        self.seconds = make(shape=(), dtype="float32", name="seconds")
        self.best_value = make(shape=(), dtype="float32", name="best_value")
        self.best_value.assign(math.inf)
        self.best_weights = [
            make(shape=w.shape, dtype="float32", name="best_weights") for w in self._rule_weights
        ]
        self._loss_metric = keras.metrics.Mean(name="loss")
        kind = GeometricMean if isinstance(task, Mixture) else keras.metrics.Mean
        self._validation_metrics = [kind(name="loss"), kind(name="final_loss")]
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that are reset at every epoch."""
        return [self._loss_metric, *self._validation_metrics]

    def compile(self, optimizer: Any = "adam", **kwargs: Any) -> None:
        """Configures meta-training.

        Args:
            optimizer: The Keras optimizer of φ. Defaults to `"adam"`.
            **kwargs: Passed on to `keras.Model.compile`; `loss` and compilation are the model's
                own.
        """
        # Windows are compiled one by one; drawing a fresh optimizee is plain Python.
        super().compile(optimizer=optimizer, run_eagerly=True, **kwargs)
        self.optimizer.build(self._rule_variables)
        # Where steps are quick, one kernel instead of a hundred small ones.
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
            validation optimizees the mean loss of an episode (`val_loss`) and that of its last
            tenth (`val_final_loss`), geometric means over the optimizees of a mixture.
        """
        validation = tf.data.Dataset.range(validation_episodes) if validation_episodes else None
        return super().fit(
            tf.data.Dataset.range(windows),
            epochs=epochs,
            validation_data=validation,
            shuffle=False,
            **kwargs,
        )

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """Computes truncation windows, and one meta-update.

        Args:
            data: Ignored: optimizees come from the task.

        Returns:
            The metrics so far.
        """
        del data
        results = []
        for episode in self._next_episodes():
            if episode.over:
                self._begin(episode)
            results.append(episode.window())
        self._turn.assign_add(1)
        values, finite, meta_gradients = zip(*results, strict=True)
        self._apply(values, finite, meta_gradients)
        return {"loss": self._loss_metric.result(), "skipped": tf.identity(self.skipped.value)}

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Optimizes one validation optimizee of each task with φ frozen.

        Args:
            data: The optimizees' seed, an integer.

        Returns:
            The metrics so far.
        """
        for validation in self._validation:
            for metric, loss in zip(self._validation_metrics, validation(int(data)), strict=True):
                metric.update_state(loss)
        return {metric.name: metric.result() for metric in self._validation_metrics}

    def keep_best(self, value: float) -> bool:
        """Keeps the rule's weights in `best_weights` if `value` is the lowest so far.

        Args:
            value: A validation loss.

        Returns:
            Whether it was.
        """
        if not value < float(self.best_value):
            return False
        self.best_value.assign(value)
        for best, weight in zip(self.best_weights, self._rule_weights, strict=True):
            best.assign(weight)
        return True

    def restore_best(self) -> None:
        """Puts `best_weights` back into the rule; does nothing before the first `keep_best`."""
        if math.isinf(float(self.best_value)):
            return
        for best, weight in zip(self.best_weights, self._rule_weights, strict=True):
            weight.assign(best)

    def _next_episodes(self) -> list[Episode]:
        """Returns those whose turn it is: all in a random order, then all in another."""
        count = len(self._episodes)
        first = int(self._turn) * self.parallel
        chosen = []
        for place in range(first, first + self.parallel):
            turn, k = divmod(place, count)
            order = np.random.default_rng((self.seed, turn)).permutation(count)
            chosen.append(self._episodes[order[k]])
        return chosen

    def _begin(self, episode: Episode) -> None:
        """Begins the next episode."""
        number = int(self._begun)
        self._begun.assign_add(1)
        shortest = self.horizons[0] // episode.unroll
        longest = max(shortest, int(self.longest_horizon) // episode.unroll)
        random = np.random.default_rng((self.seed, 1, number))
        windows = math.exp(random.uniform(math.log(shortest), math.log(longest + 1)))
        optimizee = number % self.optimizees if self.optimizees else number
        episode.begin(
            self._first_seed + optimizee,
            self._first_seed + number,
            min(int(windows), longest) * episode.unroll,
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
