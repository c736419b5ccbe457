"""Keras callbacks for meta-training."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras


class KeepBest(keras.callbacks.Callback):
    """Keeps the best weights by validation, and puts them back into the rule at the end.

    Meta-training is not monotonic: later weights are often worse than earlier ones. Put this
    callback before `Backup`, so that backups hold the best weights; and before
    `keras.callbacks.SwapEMAWeights`, so that averaged weights are kept where those are validated.

    Args:
        monitor: The logged quantity to minimise, one of validation. Defaults to
            `"val_final_loss"`.

    Example:
        >>> callback = l2l_keras.meta.KeepBest()

    Source: Andrychowicz et al. (2016), section 3 (early stopping).
    """

    def __init__(self, monitor: str = "val_final_loss") -> None:
        super().__init__()
        self.monitor = monitor

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keeps the weights that were validated if they are the best so far."""
        name = self.monitor.removeprefix("val_")
        if logs and name in logs:
            self.model.keep_best(float(logs[name]))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Makes sure that there was something to keep."""
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"KeepBest needs {self.monitor!r} among the logs: give `fit` some "
                f"`validation_episodes`. Received: {sorted(logs)}"
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the best weights back."""
        self.model.restore_best()


class Curriculum(keras.callbacks.Callback):
    """Lengthens the horizons of training episodes as a rule learns, and goes back if it forgets.

    Episodes are short at first, when a rule would only spoil a long one. When the validation loss
    has not become better for some epochs, they become longer. Whenever it is much worse than the
    best so far, the best weights are put back.

    Put this callback after `KeepBest`, on the same quantity, and before `Backup`.

    Args:
        horizons: Longest horizons in increasing order, as the `horizon` of `MetaModel`; the last
            one is that of validation.
        monitor: The logged quantity to watch. Defaults to `"val_final_loss"`.
        patience: Epochs without a better value before horizons become longer. Defaults to 2.
        tolerance: How much worse than the best, relative to it, a value may be. Defaults to 0.5.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> callback = l2l_keras.meta.Curriculum([100, 300, 1000])

    Source: Chen et al., "Training stronger baselines for learning to optimize" (2020), section 3.
    """

    def __init__(
        self,
        horizons: Sequence[int],
        monitor: str = "val_final_loss",
        patience: int = 2,
        tolerance: float = 0.5,
    ) -> None:
        super().__init__()
        if not horizons or list(horizons) != sorted(set(horizons)) or horizons[0] < 1:
            raise ValueError(
                f"`horizons` must be positive and in increasing order. Received: {horizons}"
            )
        if patience < 1 or not tolerance > 0.0:
            raise ValueError(
                "`patience` and `tolerance` must be positive. "
                f"Received: patience={patience}, tolerance={tolerance}"
            )
        self.horizons = list(horizons)
        self.monitor = monitor
        self.patience = patience
        self.tolerance = tolerance

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins with the shortest horizons, unless meta-training goes on."""
        if not int(self.model.optimizer.iterations):
            self.model.longest_horizon.assign(self.horizons[0])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves on, or back."""
        value, best = float((logs or {})[self.monitor]), float(self.model.best_value)
        if not value <= (1.0 + self.tolerance) * best:
            self.model.restore_best()
        # `KeepBest` has seen the value already, and kept it in float32.
        better = value <= best * (1.0 + 1e-6)
        self.model.waited.assign(0 if better else int(self.model.waited) + 1)
        longer = [h for h in self.horizons if h > int(self.model.longest_horizon)]
        if longer and int(self.model.waited) >= self.patience:
            self.model.longest_horizon.assign(longer[0])
            self.model.waited.assign(0)


class Backup(keras.callbacks.Callback):
    """Backs meta-training up after every epoch, so that it can go on from there.

    A backup is one file, with the epoch in its name, that is renamed into place once it is whole:
    there is a whole one, or none, whenever the process ends. (`keras.callbacks.BackupAndRestore`
    can leave one that does not load, or weights of a later epoch than it says.)

    Args:
        directory: Folder of the backup.

    Example:
        >>> callback = l2l_keras.meta.Backup("backup")
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__()
        self._directory = Path(directory)

    def restore(self, meta_model: keras.Model) -> int:
        """Loads the backup where there is one.

        Args:
            meta_model: The compiled `MetaModel`, made as the one that was backed up.

        Returns:
            How many epochs are done: the `initial_epoch` of `fit`.
        """
        backups = self._backups()
        if not backups:
            return 0
        meta_model.load_weights(backups[-1])
        return int(backups[-1].name.partition(".")[0])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the backup, and removes those before."""
        self._directory.mkdir(parents=True, exist_ok=True)
        old = self._backups()
        new = self._directory / f"{epoch + 1:09}.weights.h5"
        unfinished = self._directory / "unfinished.weights.h5"
        self.model.save_weights(unfinished)
        os.replace(unfinished, new)
        for backup in old:
            backup.unlink()

    def _backups(self) -> list[Path]:
        """Returns the backups, the last one last."""
        return sorted(self._directory.glob("[0-9]*.weights.h5"))


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
