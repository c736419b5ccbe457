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
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer).skipped_steps
