"""Keras callbacks for training with a `LearnedOptimizer`."""

from __future__ import annotations

import os
import warnings
from typing import Any

import keras

from l2l_keras.engine.backends import backend
from l2l_keras.optimizer import LearnedOptimizer

Logs = dict[str, Any] | None


class SkippedSteps(keras.callbacks.Callback):
    """Reports the steps that a `LearnedOptimizer` has skipped.

    Adds `skipped_steps`, the number of steps in the epoch whose gradients were not finite or far
    too large, to the logs, so that `History`, TensorBoard and others record it, and warns if there
    were any.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(optimizer=l2l_keras.LearnedOptimizer(rule), loss="mse")
        >>> history = model.fit(
        ...     np.ones((8, 2)),
        ...     np.ones((8, 1)),
        ...     callbacks=[l2l_keras.SkippedSteps()],
        ...     verbose=0,
        ... )
        >>> history.history["skipped_steps"]
        [0]
    """

    def on_train_begin(self, logs: Logs = None) -> None:
        """Reads the count before the first epoch."""
        self._before = _optimizer_of(self.model).skipped_steps

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Adds the epoch's `skipped_steps` to the logs."""
        count = _optimizer_of(self.model).skipped_steps
        skipped, self._before = count - self._before, count
        if logs is not None:
            logs["skipped_steps"] = skipped
        if skipped:
            warnings.warn(
                f"{skipped} steps of epoch {epoch + 1} were skipped: their gradients were not "
                "finite, or far larger than before.",
                stacklevel=2,
            )


class ObserveLoss(keras.callbacks.Callback):
    """Passes losses to a `LearnedOptimizer`'s guard where it does not see them by itself.

    That is with the JAX backend and with mixed precision; see `l2l_keras.Guard`.

    Example:
        >>> optimizer = l2l_keras.LearnedOptimizer.from_preset("quadratic", guard=True)
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(optimizer=optimizer, loss="mse")
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> history = model.fit(*data, callbacks=[l2l_keras.ObserveLoss()], verbose=0)
        >>> optimizer.guard_report["steps"]
        1
    """

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Resets the sum of losses: Keras logs the mean loss of an epoch so far."""
        self._total, self._batches = 0.0, 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Passes the loss of a batch, computed from the logged mean."""
        if not logs or "loss" not in logs:
            return
        total = float(logs["loss"]) * (batch + 1)
        loss = (total - self._total) / max(1, batch + 1 - self._batches)
        self._total, self._batches = total, batch + 1
        backend.synchronize(self.model)
        _optimizer_of(self.model).observe_loss(loss)


class Diagnostics(keras.callbacks.Callback):
    """Records diagnostics of a `LearnedOptimizer`'s rules, in TensorBoard and as numbers.

    For each variable: the norm of its update, the cosine of the angle between it and the direction
    of steepest descent (both with `record_updates` only), the share of saturated cells of the
    rule's LSTM, and the step size of rules that set one; and the guard's report, if there is a
    guard. See `LearnedOptimizer.diagnose`.

    Args:
        log_dir: Folder for TensorBoard. Defaults to None: `history` alone.
        update_freq: `"epoch"` (the default), or a number of batches.

    Attributes:
        history: For each time, the number of batches so far, and all numbers by name, such as
            "update norm/dense/kernel" and "guard/rescues".

    Raises:
        ValueError: If an argument is not as described, or the model that is trained has another
            optimizer.

    Example:
        >>> rule = l2l_keras.rules.TensorwiseLSTM(seed=0)
        >>> optimizer = l2l_keras.LearnedOptimizer(rule, record_updates=True)
        >>> model = keras.Sequential([keras.layers.Dense(1, name="dense")])
        >>> model.compile(optimizer=optimizer, loss="mse")
        >>> diagnostics = l2l_keras.Diagnostics("logs")
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> history = model.fit(*data, callbacks=[diagnostics], verbose=0)
        >>> batches, numbers = diagnostics.history[-1]
        >>> any(name.startswith("step size/") for name in numbers)
        True
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None = None, update_freq: int | str = "epoch"
    ) -> None:
        super().__init__()
        if update_freq != "epoch" and not (isinstance(update_freq, int) and update_freq > 0):
            raise ValueError(
                f"`update_freq` must be 'epoch' or a number of batches. Received: {update_freq!r}"
            )
        self.log_dir = log_dir
        self.update_freq = update_freq
        self.history: list[tuple[int, dict[str, float]]] = []
        self._writer: Any = None
        self._batches = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Raises an error at once if there will be nothing to record."""
        _optimizer_of(self.model)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Records numbers after every `update_freq` batches."""
        self._batches += 1
        if self.update_freq != "epoch" and self._batches % int(self.update_freq) == 0:
            self._record()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Records numbers after every epoch."""
        if self.update_freq == "epoch":
            self._record()

    def _record(self) -> None:
        backend.synchronize(self.model)
        optimizer = _optimizer_of(self.model)
        numbers = {
            f"{name}/{path}": number
            for path, own in optimizer.diagnose().items()
            for name, number in own.items()
        }
        numbers["skipped steps"] = optimizer.skipped_steps
        if optimizer.guard:
            report = optimizer.guard_report.items()
            numbers |= {f"guard/{name}": float(number) for name, number in report}
        self.history.append((self._batches, numbers))
        if self.log_dir is None:
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))
        with self._writer.as_default(step=self._batches):
            for name, number in numbers.items():
                tf.summary.scalar(name, number)
        self._writer.flush()


def _optimizer_of(model: keras.Model) -> LearnedOptimizer:
    """Returns a model's optimizer, without the wrapper that scales losses for it."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not isinstance(optimizer, LearnedOptimizer):
        raise ValueError(
            "The callback expected a model that is compiled with a `LearnedOptimizer`. "
            f"Received: optimizer={optimizer!r}"
        )
    return optimizer
