"""Meta-training as a Keras model: compile, fit, callbacks."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from l2l_keras import parameter_groups
from l2l_keras.meta.meta_gradient import Inner, InnerLoop
from l2l_keras.meta.meta_loss import META_LOSSES, STEP_WEIGHTS, window_loss
from l2l_keras.rules import UpdateRule
from l2l_keras.tasks.base import Nest, Split, Task, Tensor, split_seed


class MetaModel(keras.Model):
    """Meta-trains an update rule on a task.

    One training step is one truncation window: `unroll` inner steps of an optimizee, and one step
    of the meta-optimizer on φ. An episode is `horizon` inner steps of one optimizee, drawn afresh;
    the next window goes on where the last one ended. A window whose meta-gradient is not finite
    changes nothing, is counted in `skipped`, and ends its episode.

    Everything that changes is in the model's variables, and every draw follows from `seed` and the
    episode's number: a run that was backed up resumes to the same weights as one that was not
    interrupted. The best weights by validation are kept in `best_weights` (see `KeepBest`).

    Compile with a Keras optimizer for φ, such as `keras.optimizers.Adam(1e-3, global_clipnorm=1)`:
    its `global_clipnorm` clips the meta-gradient.

    Args:
        rule: The update rule to train; or several, one for each of a task's parameter groups, as a
            dictionary `{pattern: rule}` (see `LearnedOptimizer`).
        task: The task family to train it on.
        horizon: Inner steps in an episode. Defaults to 100.
        unroll: Inner steps in a window, a divisor of `horizon`. Defaults to 20.
        meta_loss: `"mean"` (default), `"log"`, `"log_mean"` or `"relative"`; see
            `l2l_keras.meta.META_LOSSES`.
        step_weights: `"uniform"` (default), `"linear"` or `"final"`; see
            `l2l_keras.meta.STEP_WEIGHTS`.
        random_scale: Largest |log s| of a random reparametrisation θ = s·θ', s drawn for each
            coordinate and episode, in training only. Defaults to 0 (none).
        second_derivatives: Whether to differentiate the optimizee's gradients too, which costs one
            Hessian-vector product a step and keeps all of a window's activations. Worth most
            with a long `unroll`. Not for optimizees with batch normalisation, whose second
            derivatives TensorFlow gets wrong (its `tf.nn.moments` stops a gradient). Defaults to
            False, the paper's choice.
        seed: Seed of every draw, a non-negative integer. Defaults to 0.
        chunk_size: See `InnerLoop`.
        cache_bytes: See `InnerLoop`.

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
    """

    def __init__(
        self,
        rule: UpdateRule | Mapping[str, UpdateRule],
        task: Task,
        horizon: int = 100,
        unroll: int = 20,
        meta_loss: str = "mean",
        step_weights: str = "uniform",
        random_scale: float = 0.0,
        second_derivatives: bool = False,
        seed: int = 0,
        chunk_size: int = 4096,
        cache_bytes: int = 2**27,
    ) -> None:
        super().__init__(name="meta_model")
        if unroll < 1 or horizon < 1 or horizon % unroll:
            raise ValueError(
                "`horizon` must be a positive multiple of `unroll`. "
                f"Received: horizon={horizon}, unroll={unroll}"
            )
        for argument, value, known in (
            ("meta_loss", meta_loss, META_LOSSES),
            ("step_weights", step_weights, STEP_WEIGHTS),
        ):
            if value not in known:
                raise ValueError(
                    f"`{argument}` must be one of {sorted(known)}. Received: {value!r}"
                )
        if random_scale < 0.0:
            raise ValueError(f"`random_scale` must not be negative. Received: {random_scale}")
        self.rule = rule
        self.task = task
        self.horizon = horizon
        self.unroll = unroll
        self.seed = seed
        self._meta_loss = functools.partial(window_loss, meta_loss, step_weights)
        self._random_scale = random_scale
        self._second_derivatives = second_derivatives
        self._loop = InnerLoop(rule, task, chunk_size, cache_bytes)
        self._rule_weights = parameter_groups.weights(rule)
        # Seeds of episodes: room for 2**20 episodes with each of 2**9 seeds.
        self._first_episode = (seed % 2**9) * 2**20
        self._validation: dict[int, tuple[Tensor, Nest]] = {}
        self._make_variables()
        self.built = True

    def _make_variables(self) -> None:
        """Makes the variables that hold the episode, the counters and the best weights."""
        parameters, task_state = self.task.sample("train", self.seed)
        batch = self.task.batch("train", tf.zeros((2,), tf.int32))
        initial, inner = self._loop.start(parameters, task_state, batch)
        make = functools.partial(self.add_weight, initializer="zeros", trainable=False)
        self._inner = tf.nest.map_structure(
            lambda t: make(shape=t.shape, dtype=t.dtype.name, name="inner"), inner
        )
        self._initial_losses = make(shape=initial.shape, dtype="float32", name="initial_losses")
        self._scale = None
        if self._random_scale:
            self._scale = make(shape=(self.task.size,), dtype="float32", name="scale")
        self._episode = make(shape=(), dtype="int32", name="episode")
        self._step = make(shape=(), dtype="int32", name="step")
        self.skipped = make(shape=(), dtype="int32", name="skipped")
        self.seconds = make(shape=(), dtype="float32", name="seconds")
        self.best_value = make(shape=(), dtype="float32", name="best_value")
        self.best_value.assign(math.inf)
        self.best_weights = [
            make(shape=w.shape, dtype="float32", name="best_weights") for w in self._rule_weights
        ]
        self._loss_metric = keras.metrics.Mean(name="loss")
        self._final_metric = keras.metrics.Mean(name="final_loss")

    @property
    def _rule_variables(self) -> list[Any]:
        """The rules' trainable variables, in the order of meta-gradients."""
        return [v for rule in self._loop.rules for v in rule.trainable_variables]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that are reset at every epoch."""
        return [self._loss_metric, self._final_metric]

    def compile(self, optimizer: Any = "adam", **kwargs: Any) -> None:
        """Configures meta-training.

        Args:
            optimizer: The Keras optimizer of φ. Defaults to `"adam"`.
            **kwargs: Passed on to `keras.Model.compile`; `loss` and compilation are the model's
                own.
        """
        # The window is compiled here, piece by piece; drawing a fresh optimizee is plain Python.
        super().compile(optimizer=optimizer, run_eagerly=True, **kwargs)
        self.optimizer.build(self._rule_variables)
        # Where steps are quick, one kernel instead of a hundred small ones.
        self._accept = tf.function(
            self._accept_window, jit_compile=self.task.jit_compile, autograph=False
        )

    def fit(  # type: ignore[override]
        self, epochs: int = 1, windows: int = 100, validation_episodes: int = 10, **kwargs: Any
    ) -> keras.callbacks.History:
        """Meta-trains the rule, or rules.

        Args:
            epochs: Number of epochs, each followed by a validation. Defaults to 1.
            windows: Truncation windows in an epoch. Defaults to 100.
            validation_episodes: Validation optimizees, the same ones after every epoch.
                Defaults to 10.
            **kwargs: Passed on to `keras.Model.fit`, such as `callbacks` and `verbose`.

        Returns:
            Keras' history: the mean meta-loss (`loss`), the number of skipped windows, and on
            validation optimizees the mean loss of an episode (`val_loss`) and that of its last
            tenth (`val_final_loss`).
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
        """Computes one truncation window and one meta-update.

        Args:
            data: Ignored: optimizees come from the task.

        Returns:
            The metrics so far.
        """
        del data
        if int(self._step) == 0:
            self._begin_episode()
        loss, skipped = self._window()
        return {"loss": loss, "skipped": skipped}

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Optimizes one validation optimizee with φ frozen.

        Args:
            data: The optimizee's seed, an integer.

        Returns:
            The metrics so far.
        """
        seed = int(data)
        if seed not in self._validation:
            self._validation[seed] = self.task.sample("validation", seed)
        key = tf.constant(split_seed("validation", seed), tf.int32)
        self._run_episode(*self._validation[seed], key)
        return {"loss": self._loss_metric.result(), "final_loss": self._final_metric.result()}

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

    def _begin_episode(self) -> None:
        """Draws the next training optimizee and puts it into the variables."""
        seed = self._first_episode + int(self._episode)
        parameters, task_state = self.task.sample("train", seed)
        key = tf.constant([seed, 0], tf.int32)
        self._start_episode(parameters, task_state, key)

    @functools.partial(tf.function, autograph=False)
    def _start_episode(self, parameters: Tensor, task_state: Nest, key: Tensor) -> None:
        losses, inner = self._loop.start(parameters, task_state, self.task.batch("train", key))
        _assign(self._inner, inner)
        self._initial_losses.assign(losses)
        if self._scale is not None:
            log_scale = tf.random.stateless_uniform(
                self._scale.shape, key, -self._random_scale, self._random_scale
            )
            self._scale.assign(tf.exp(log_scale))

    def _batch(self, split: Split, seed: Tensor, step: Tensor) -> Nest:
        return self.task.batch(split, tf.stack([seed, step]))

    @functools.partial(tf.function, autograph=False)
    def _window(self) -> tuple[Tensor, Tensor]:
        """Computes one window, applies its meta-gradient and moves the episode on."""
        steps = self._step.value + tf.range(1, self.unroll + 1)
        seed = self._first_episode + self._episode.value
        progress = tf.cast(steps, "float32") / self.horizon
        inner = tf.nest.map_structure(lambda v: tf.convert_to_tensor(v.value), self._inner)
        scale = None if self._scale is None else self._scale.value
        initial = self._initial_losses.value
        value, meta_gradient, _, inner = self._loop.meta_gradient(
            inner,
            lambda t: self._batch("train", seed, steps[t]),
            self.unroll,
            lambda losses: self._meta_loss(losses, initial, progress),
            scale,
            self._second_derivatives,
        )
        finite = [tf.reduce_all(tf.math.is_finite(t)) for t in (value, *meta_gradient)]
        tf.cond(
            tf.reduce_all(finite),
            lambda: self._accept(value, meta_gradient, inner),
            self._skip,
        )
        return self._loss_metric.result(), tf.identity(self.skipped.value)

    def _accept_window(self, value: Tensor, meta_gradient: list[Tensor], inner: Inner) -> None:
        """Applies a window's meta-gradient."""
        self.optimizer.apply(meta_gradient, self._rule_variables)
        _assign(self._inner, inner)
        self._loss_metric.update_state(value)
        self._move_to(self._step.value + self.unroll)

    def _skip(self) -> None:
        """Gives an episode up."""
        self.skipped.assign_add(1)
        self._move_to(self.horizon)

    def _move_to(self, step: Tensor) -> None:
        over = tf.cast(step >= self.horizon, "int32")
        self._step.assign(step * (1 - over))
        self._episode.assign_add(over)

    @functools.partial(tf.function, autograph=False)
    def _run_episode(self, parameters: Tensor, task_state: Nest, seed: Tensor) -> None:
        """Runs one episode with φ frozen."""
        draw = functools.partial(self._batch, "validation", seed)
        losses = self._loop.rollout(parameters, task_state, draw, self.horizon)
        losses = tf.reduce_mean(losses[1:], axis=1)
        self._loss_metric.update_state(tf.reduce_mean(losses))
        self._final_metric.update_state(tf.reduce_mean(losses[-math.ceil(self.horizon / 10) :]))


def _assign(variables: Nest, values: Nest) -> None:
    """Assigns a nested structure of tensors to one of variables."""
    tf.nest.map_structure(lambda variable, value: variable.assign(value), variables, values)
