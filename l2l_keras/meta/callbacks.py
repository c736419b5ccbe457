"""Keras callbacks for meta-training."""

from __future__ import annotations

import time
from typing import Any

import keras


class KeepBest(keras.callbacks.Callback):
    """Keeps the best weights by validation, and puts them back into the rule at the end.

    Meta-training is not monotonic: later weights are often worse than earlier ones. Put this
    callback before `keras.callbacks.BackupAndRestore`, so that backups hold the best weights.

    Args:
        monitor: The logged quantity to minimise. Defaults to `"val_final_loss"`.

    Example:
        >>> callback = l2l_keras.meta.KeepBest()

    Source: Andrychowicz et al. (2016), section 3 (early stopping).
    """

    def __init__(self, monitor: str = "val_final_loss") -> None:
        super().__init__()
        self.monitor = monitor

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps the weights if they are the best so far."""
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"KeepBest needs {self.monitor!r} among the logs: give `fit` some "
                f"`validation_episodes`. Received: {sorted(logs)}"
            )
        self.model.keep_best(float(logs[self.monitor]))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the best weights back."""
        self.model.restore_best()


class Progress(keras.callbacks.Callback):
    """Prints one line at the end of every epoch, with the time left, and keeps the clock.

    The model's `seconds` gets the wall time of meta-training, that of resumed parts included.

    Args:
        write: Where lines go. Defaults to `print`.

    Example:
        >>> callback = l2l_keras.meta.Progress()
    """

    def __init__(self, write: Any = print) -> None:
        super().__init__()
        self._write = write

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._start = self._epoch_start = time.monotonic()
        self._epochs_done = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the line."""
        logs = logs or {}
        epochs = self.params["epochs"]
        now = time.monotonic()
        self.model.seconds.assign_add(now - self._epoch_start)
        self._epoch_start = now
        elapsed = now - self._start
        self._epochs_done += 1  # In this process: a resumed run starts later than at 0.
        left = elapsed / self._epochs_done * (epochs - epoch - 1)
        parts = [f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"]
        parts += [
            f"{label} {float(logs[key]):.4g}"
            for label, key in (
                ("meta-loss", "loss"),
                ("validation: mean loss", "val_loss"),
                ("final loss", "val_final_loss"),
            )
            if key in logs
        ]
        if "skipped" in logs and int(logs["skipped"]):
            parts.append(f"{int(logs['skipped'])} windows skipped")
        parts.append(f"{duration(elapsed)}, {duration(left)} left")
        self._write("  ".join(parts))


def duration(seconds: float) -> str:
    """Formats a duration as a person would say it.

    Args:
        seconds: The duration in seconds.

    Returns:
        Its two largest units.

    Example:
        >>> duration(7384), duration(64.2), duration(3)
        ('2 h 03 min', '1 min 04 s', '3 s')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
