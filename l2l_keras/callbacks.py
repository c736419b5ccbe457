"""Keras callbacks for training with a `LearnedOptimizer`."""

from __future__ import annotations

import warnings
from typing import Any

import keras


class SkippedSteps(keras.callbacks.Callback):
    """Reports the steps that a `LearnedOptimizer` has skipped.

    Adds `skipped_steps`, the number of steps in the epoch whose gradients were not finite or far
    too large, to the logs, so that `History`, TensorBoard and others record it, and warns when
    there were any.

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

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Notes where the count stands.

        Args:
            logs: Not used.
        """
        self._before = self._count()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports an epoch's.

        Args:
            epoch: Number of the epoch, from 0.
            logs: The epoch's results; `skipped_steps` is added to them.
        """
        count = self._count()
        skipped, self._before = count - self._before, count
        if logs is not None:
            logs["skipped_steps"] = skipped
        if skipped:
            warnings.warn(
                f"{skipped} steps of epoch {epoch + 1} were skipped: their gradients were not "
                "finite, or far larger than before.",
                stacklevel=2,
            )

    def _count(self) -> int:
        return _optimizer_of(self.model).skipped_steps


class ObserveLoss(keras.callbacks.Callback):
    """Shows losses to a `LearnedOptimizer`'s guard where it does not see them by itself.

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

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins anew: what is logged is the mean loss of an epoch.

        Args:
            epoch: Not used.
            logs: Not used.
        """
        self._total, self._batches = 0.0, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Shows the loss of a batch.

        Args:
            batch: Number of the batch, from 0.
            logs: Where the mean loss so far is.
        """
        if not logs or "loss" not in logs:
            return
        total = float(logs["loss"]) * (batch + 1)
        loss = (total - self._total) / max(1, batch + 1 - self._batches)
        self._total, self._batches = total, batch + 1
        if keras.backend.backend() == "jax":
            # The trainer's variables are where it left them; it reads them again.
            self.model.jax_state_sync()
        _optimizer_of(self.model).observe_loss(loss)


def _optimizer_of(model: keras.Model) -> Any:
    """Returns a model's optimizer, without what scales losses for it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)
