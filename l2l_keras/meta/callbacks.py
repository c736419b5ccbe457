"""Keras callbacks for meta-training."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from l2l_keras import arguments, parameter_groups
from l2l_keras.progress import duration

Logs = dict[str, Any] | None


class StatefulCallback(keras.callbacks.Callback):
    """A callback whose `state`, numbers and arrays by name, `Backup` saves and restores."""

    def __init__(self, **state: Any) -> None:
        super().__init__()
        self.state = state


class KeepBest(StatefulCallback):
    """Keeps the best weights by validation, and puts them back into the rule at the end.

    Meta-training is not monotonic: later weights are often worse than earlier ones. Put this
    callback before `Backup`, so that backups hold the best weights; and before
    `keras.callbacks.SwapEMAWeights`, so that averaged weights are kept where those are validated.
    The best weights outlast a call of `fit`: pass the same instance to the next one.

    Args:
        monitor: The logged quantity to minimize, one of validation. Defaults to
            `"val_final_loss"`.

    Raises:
        ValueError: In `fit`, if `monitor` is not logged.

    Example:
        >>> callback = l2l_keras.meta.KeepBest()

    Source: Andrychowicz et al. (2016), section 3 (early stopping).
    """

    def __init__(self, monitor: str = "val_final_loss") -> None:
        super().__init__(best_value=math.inf)
        self.monitor = monitor

    @property
    def best_value(self) -> float:
        """The smallest value so far, infinite at first."""
        return float(self.state["best_value"])

    def on_test_end(self, logs: Logs = None) -> None:
        """Keeps the weights that were validated if they are the best so far."""
        name = self.monitor.removeprefix("val_")
        if logs and name in logs and float(logs[name]) < self.best_value:
            self.state = {"best_value": float(logs[name])}
            for k, weight in enumerate(parameter_groups.weights(self.model.rule)):
                self.state[f"weights_{k}"] = np.array(keras.ops.convert_to_numpy(weight))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Checks that `monitor` was logged."""
        if self.monitor not in (logs or {}):
            raise ValueError(
                f"KeepBest needs {self.monitor!r} among the logs: give `fit` some "
                f"`validation_episodes`. Received: {sorted(logs or {})}"
            )

    def on_train_end(self, logs: Logs = None) -> None:
        """Puts the best weights back."""
        self.restore()

    def restore(self) -> None:
        """Puts the best weights, if there are any, back into the rule."""
        if math.isfinite(self.best_value):
            for k, weight in enumerate(parameter_groups.weights(self.model.rule)):
                weight.assign(self.state[f"weights_{k}"])


class Curriculum(StatefulCallback):
    """Lengthens the horizons of training episodes as a rule learns, and goes back if it forgets.

    Episodes are short at first, while a rule would only spoil a long one. When the validation loss
    has not improved for some epochs, they become longer. Whenever it is much worse than the best so
    far, the best weights are put back.

    Put this callback after `keep_best` and before `Backup`.

    Args:
        horizons: Longest horizons in increasing order, as the `horizon` of `MetaModel`; the last
            one is that of validation.
        keep_best: The `KeepBest` whose `monitor` is watched and whose weights are put back.
        patience: Epochs without a better value before horizons become longer. Defaults to 2.
        tolerance: How much worse than the best, relative to it, a value may be. Defaults to 0.5.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> keep_best = l2l_keras.meta.KeepBest()
        >>> callback = l2l_keras.meta.Curriculum([100, 300, 1000], keep_best)

    Source: Chen et al., "Training stronger baselines for learning to optimize" (2020), section 3.
    """

    def __init__(
        self,
        horizons: Sequence[int],
        keep_best: KeepBest,
        patience: int = 2,
        tolerance: float = 0.5,
    ) -> None:
        super().__init__(waited=0)
        valid = horizons and list(horizons) == sorted(set(horizons)) and horizons[0] >= 1
        arguments.check(bool(valid), "horizons", "positive and in increasing order", horizons)
        arguments.count("patience", patience)
        self.horizons = list(horizons)
        self.keep_best = keep_best
        self.patience = patience
        self.tolerance = arguments.positive("tolerance", tolerance)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Begins with the shortest horizons, unless meta-training was under way."""
        if not int(self.model.optimizer.iterations):
            self.model.longest_horizon.assign(self.horizons[0])

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Lengthens horizons or puts the best weights back, if it is time to."""
        value, best = float((logs or {})[self.keep_best.monitor]), self.keep_best.best_value
        if _is_worse(value, best, self.tolerance):
            self.keep_best.restore()
        # `keep_best` has seen the value already.
        waited = 0 if value <= best else int(self.state["waited"]) + 1
        longer = [h for h in self.horizons if h > int(self.model.longest_horizon)]
        if longer and waited >= self.patience:
            self.model.longest_horizon.assign(longer[0])
            waited = 0
        self.state["waited"] = waited


class Backtrack(StatefulCallback):
    """Goes back to the best epoch, with a lower learning rate, when validation is much worse.

    So meta-training may begin with a learning rate that is too high. What comes back are the
    weights and the meta-optimizer's variables as they were after the best epoch, its number of
    steps aside.

    Put this callback after `keep_best` and before `Backup`, and compile the model with
    `l2l_keras.meta.adam(..., factor=callback.factor)`.

    Args:
        keep_best: The `KeepBest` whose `monitor` is watched.
        tolerance: How much worse than the best, relative to it, a value may be. Defaults to 0.3.
        cut: What multiplies the learning rate then. Defaults to 0.5.

    Attributes:
        factor: Product of all cuts, a variable.

    Raises:
        ValueError: If `tolerance` is not positive, or `cut` not between 0 and 1.

    Example:
        >>> keep_best = l2l_keras.meta.KeepBest()
        >>> callback = l2l_keras.meta.Backtrack(keep_best)
        >>> optimizer = l2l_keras.meta.adam(0.02, updates=100, factor=callback.factor)
    """

    def __init__(self, keep_best: KeepBest, tolerance: float = 0.3, cut: float = 0.5) -> None:
        super().__init__(factor=1.0)
        self.keep_best = keep_best
        self.tolerance = arguments.positive("tolerance", tolerance)
        arguments.check(0.0 < cut < 1.0, "cut", "between 0 and 1", cut)
        self.cut = cut
        self.factor = keras.Variable(1.0, dtype="float32", trainable=False, name="factor")

    def on_train_begin(self, logs: Logs = None) -> None:
        """Sets the factor, of a resumed run too, and keeps where meta-training begins."""
        self.factor.assign(self.state["factor"])
        if len(self.state) == 1:
            self._keep()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keeps the state of the best epoch, or goes back to it."""
        value, best = float((logs or {})[self.keep_best.monitor]), self.keep_best.best_value
        if value <= best:  # `keep_best` has seen the value already.
            self._keep()
        elif _is_worse(value, best, self.tolerance):
            for k, variable in enumerate(self._variables()):
                variable.assign(self.state[f"variable_{k}"])
            self.state["factor"] = self.cut * float(self.state["factor"])
            self.factor.assign(self.state["factor"])

    def _variables(self) -> list[keras.Variable]:
        optimizer = self.model.optimizer
        own = [v for v in optimizer.variables if v is not optimizer.iterations]
        return [*parameter_groups.weights(self.model.rule), *own]

    def _keep(self) -> None:
        for k, variable in enumerate(self._variables()):
            self.state[f"variable_{k}"] = np.array(keras.ops.convert_to_numpy(variable))


def _is_worse(value: float, best: float, tolerance: float) -> bool:
    """Returns whether a value is worse than the best by more than a share of it, or NaN."""
    return not value <= best + tolerance * abs(best)


class Progress(StatefulCallback):
    """Prints one line at the end of every epoch, with the time left, and measures time.

    Args:
        write: Called with every line. Defaults to `print`.

    Example:
        >>> callback = l2l_keras.meta.Progress()
    """

    def __init__(self, write: Any = print) -> None:
        super().__init__(seconds=0.0)
        self._write = write

    @property
    def seconds(self) -> float:
        """Wall time of meta-training, the parts before an interruption included."""
        return float(self.state["seconds"])

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts the clock."""
        self._start = self._epoch_start = time.monotonic()
        self._epochs_done = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Prints the line."""
        logs = logs or {}
        epochs = self.params["epochs"]
        now = time.monotonic()
        self.state["seconds"] += now - self._epoch_start
        self._epoch_start = now
        elapsed = now - self._start
        self._epochs_done += 1  # In this process: a resumed run starts later than at 0.
        left = elapsed / self._epochs_done * (epochs - epoch - 1)
        parts = [f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"]
        labels = {
            "loss": "meta-loss",
            "val_loss": "validation: mean loss",
            "val_final_loss": "final loss",
        }
        parts += [f"{labels[key]} {float(logs[key]):.4g}" for key in labels if key in logs]
        if int(logs.get("skipped", 0)):
            parts.append(f"{int(logs['skipped'])} windows skipped")
        parts.append(f"{duration(elapsed)}, {duration(left)} left")
        self._write("  ".join(parts))


class Backup(keras.callbacks.Callback):
    """Backs meta-training up after every epoch, so that an interrupted run can be resumed.

    A backup is one file, with the number of epochs in its name, that is renamed into place once it
    is complete: whenever the process ends, there is a complete one or none.
    (`keras.callbacks.BackupAndRestore` can leave one that does not load or holds weights of a later
    epoch than it says, and does not save other callbacks' state.)

    Put this callback after all those that it saves.

    Args:
        directory: Folder of the backup.
        **callbacks: The callbacks whose state is saved too, each under a name.

    Example:
        >>> keep_best = l2l_keras.meta.KeepBest()
        >>> callback = l2l_keras.meta.Backup("backup", keep_best=keep_best)
    """

    def __init__(self, directory: str | os.PathLike[str], **callbacks: StatefulCallback) -> None:
        super().__init__()
        self._directory = Path(directory)
        self._callbacks = callbacks

    def restore(self, meta_model: keras.Model) -> int:
        """Loads the backup if there is one.

        Args:
            meta_model: The compiled `MetaModel`, made as the one that was backed up.

        Returns:
            The number of epochs that are done: the `initial_epoch` of `fit`.

        Raises:
            ValueError: If the backup is of another model, or lacks a callback's state.
        """
        backups = self._backups()
        if not backups:
            return 0
        meta_model.load_weights(backups[-1])
        with h5py.File(backups[-1]) as file:
            saved = file.get("callbacks", {})
            if missing := self._callbacks.keys() - saved.keys():
                raise ValueError(
                    f"The backup must hold the state of all callbacks. Received: a backup of "
                    f"{sorted(saved)}, which lacks {sorted(missing)}"
                )
            for name, callback in self._callbacks.items():
                callback.state = {key: value[()] for key, value in saved[name].items()}
        return int(backups[-1].name.partition(".")[0])

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the backup, and removes earlier ones."""
        self._directory.mkdir(parents=True, exist_ok=True)
        old = self._backups()
        new = self._directory / f"{epoch + 1:09}.weights.h5"
        unfinished = self._directory / "unfinished.weights.h5"
        self.model.save_weights(unfinished)
        with h5py.File(unfinished, "a") as file:
            for name, callback in self._callbacks.items():
                for key, value in callback.state.items():
                    file[f"callbacks/{name}/{key}"] = value
        os.replace(unfinished, new)
        for backup in old:
            backup.unlink()

    def _backups(self) -> list[Path]:
        """Returns the backups, the last one last."""
        return sorted(self._directory.glob("[0-9]*.weights.h5"))
