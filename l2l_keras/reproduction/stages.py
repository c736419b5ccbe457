"""The stages of a figure: commands that a user could type, run where what they make is not there.

A workshop is a folder of stages: `trainings/NAME` is the output folder of an `l2l-meta-train`,
`evaluations/NAME` of an `l2l-evaluate`. A file `stage.json` in each says what it was made from.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from l2l_keras import evaluation, parameter_groups, presets
from l2l_keras.reproduction import child
from l2l_keras.reproduction.child import StageError

_RECORD = "stage.json"
# What `l2l-evaluate` writes of one task, and of several.
_REPORTS = (("results.json", "curves.csv"), ("testbed.json",))


@dataclasses.dataclass(frozen=True)
class Training:
    """A rule that a figure needs, and how it is meta-trained.

    Attributes:
        name: Name of the rule in the figure, and of its folder.
        arguments: Flags of `l2l-meta-train`, those of places and data left out.
        preset: Name of the shipped preset that was made in this way, or None.
        reads_data: Whether the task reads a data set from a folder.

    Example:
        >>> l2l_keras.reproduction.Training("lstm", ("--task=quadratic",), "quadratic").name
        'lstm'
    """

    name: str
    arguments: tuple[str, ...]
    preset: str | None = None
    reads_data: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A comparison that a figure shows.

    Attributes:
        name: Name of its folder.
        trainings: Names of the rules that are compared with tuned baselines.
        arguments: Flags of `l2l-evaluate`, those of presets, places and data left out.
        reads_data: Whether the task reads a data set from a folder.

    Example:
        >>> l2l_keras.reproduction.Evaluation("near_zero", ("lstm",), ("--seeds=8",)).trainings
        ('lstm',)
    """

    name: str
    trainings: tuple[str, ...]
    arguments: tuple[str, ...]
    reads_data: bool = False


Stage = Training | Evaluation


class Workshop:
    """A folder in which stages are run, each once; one process at a time may work there.

    Use it in a `with` statement.

    Args:
        folder: The folder, which must exist.
        given: Presets to take instead of meta-training, by name of the training: the name of a
            shipped preset, or a folder.
        data_arguments: Flags for stages that read data.
        training_arguments: Further flags of `l2l-meta-train`, which do not change what is made,
            such as the number of threads.
        write: Called with each line that there is to show. Defaults to `print`.
        jobs: How many stages may run at a time: they share the processor's threads, and each of
            their lines says which it is from. Defaults to 1.

    Attributes:
        folder: The folder.
        jobs: As given.

    Raises:
        StageError: On entry, if another process works in the folder.

    Example:
        >>> import os
        >>> os.mkdir("figures")
        >>> with l2l_keras.reproduction.Workshop("figures", {"lstm": "quadratic"}) as workshop:
        ...     workshop.preset("lstm"), workshop.preset("mnist_mlp")
        ('quadratic', 'figures/trainings/mnist_mlp/preset')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        given: Mapping[str, str] | None = None,
        data_arguments: Sequence[str] = (),
        training_arguments: Sequence[str] = (),
        write: Callable[[str], None] = print,
        jobs: int = 1,
    ) -> None:
        self.folder = Path(folder)
        self.jobs = jobs
        self._given = dict(given or {})
        self._data_arguments = tuple(data_arguments)
        self._training_arguments = tuple(training_arguments)
        self._write = write
        self._writing = threading.Lock()
        self._children = child.Children(max(1, _processors() // jobs) if jobs > 1 else 0)
        self._lock: int | None = None

    def __enter__(self) -> Workshop:
        """Takes the folder."""
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StageError(
                f"Another process works in {str(self.folder)!r}: wait for it, or name another "
                "folder"
            ) from error
        self._lock = lock
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives the folder free."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, line: str, of: Stage | None = None) -> None:
        """Shows a line, from any thread; where several stages run, with the name of the one."""
        if of is not None and self.jobs > 1:
            line = f"{of.name}: {line}"
        with self._writing:
            self._write(line)

    def stop(self) -> None:
        """Ends the stages that run, from any thread; none can be run afterwards."""
        self._children.stop()

    def place(self, stage: Stage) -> Path:
        """Returns the output folder of a stage."""
        kind = "trainings" if isinstance(stage, Training) else "evaluations"
        return self.folder / kind / stage.name

    def preset(self, training: str) -> str:
        """Returns the preset of a training, by its name: the one given, or the one it makes."""
        own = self.folder / "trainings" / training / "preset"
        return self._given.get(training, str(own))

    def is_given(self, training: str) -> bool:
        """Returns whether a preset is taken for a training, by its name."""
        return training in self._given

    def card(self, training: str) -> dict[str, Any]:
        """Returns the card of a training's preset, by the training's name."""
        return presets.load_preset(self.preset(training))[1]

    def rule(self, training: str) -> presets.Rules:
        """Returns the rule of a training's preset, or its groups, by the training's name."""
        return presets.load_preset(self.preset(training))[0]

    def label(self, training: str) -> str:
        """Returns how figures name a rule, by the training's name: with the kind that it is of."""
        kinds = {type(r).__name__ for r in parameter_groups.only_rules(self.rule(training))}
        return f"{training} ({', '.join(sorted(kinds))})"

    def command(self, stage: Stage) -> list[str]:
        """Returns a stage's whole command line."""
        data = self._data_arguments if stage.reads_data else ()
        shared = [*stage.arguments, *data, f"--output_dir={self.place(stage)}"]
        if isinstance(stage, Training):
            return ["l2l-meta-train", *shared, "--noevaluate", *self._training_arguments]
        learned = [f"--preset={name}={self.preset(name)}" for name in stage.trainings]
        return ["l2l-evaluate", *learned, *shared]

    def finished(self, stage: Stage) -> bool:
        """Returns whether a stage's outputs are there, made from what would be used now."""
        place = self.place(stage)
        if isinstance(stage, Training):
            if self.is_given(stage.name):
                return True
            made = (place / "preset").is_dir() and not (place / "backup").exists()
            return made and _read(place) == _inputs_of_training(stage)
        record = _read(place)
        record.pop("seconds", None)
        made = any(all((place / name).is_file() for name in report) for report in _REPORTS)
        return made and record == self._inputs_of_evaluation(stage)

    def seconds(self, stage: Stage) -> float | None:
        """Returns the wall time of a finished stage, or None where it is not known."""
        if isinstance(stage, Training):
            return self.card(stage.name).get("wall_seconds")
        return _read(self.place(stage)).get("seconds")

    def run(self, stage: Stage) -> bool:
        """Runs a stage, unless its outputs are there; an interrupted training goes on.

        Args:
            stage: The stage. The presets of an evaluation must be there.

        Returns:
            Whether there was anything to do.

        Raises:
            StageError: If the command fails, or a training's folder holds a run of other flags.
            OSError: If the folder cannot be written to.
        """
        if self.finished(stage):
            return False
        if isinstance(stage, Training):
            self._train(stage)
        else:
            self._evaluate(stage)
        return True

    def _train(self, training: Training) -> None:
        place, inputs = self.place(training), _inputs_of_training(training)
        begun = (place / "settings.json").exists()
        if begun and _read(place) != inputs:
            raise StageError(
                f"{str(place)!r} holds a run of other flags: remove it, or name another folder"
            )
        # Before the run: what is left of it can be told from a run of other flags.
        _write(place, inputs)
        self._run(training, ["--resume"] * begun)

    def _evaluate(self, stage: Evaluation) -> None:
        place, inputs = self.place(stage), self._inputs_of_evaluation(stage)
        start = time.monotonic()
        self._run(stage)
        # After the run: whatever there is before it was made from something else.
        _write(place, {**inputs, "seconds": round(time.monotonic() - start, 1)})

    def _run(self, stage: Stage, more: Sequence[str] = ()) -> None:
        command, *arguments = self.command(stage)
        self._children.run(
            command,
            [*arguments, *more],
            lambda line: self.write(line, stage),
            keep_open=[] if self._lock is None else [self._lock],
        )

    def _inputs_of_evaluation(self, stage: Evaluation) -> dict[str, Any]:
        """Returns what makes an evaluation what it is; a card tells one trained rule from another.

        Raises:
            ValueError: If a preset is missing.
        """
        cards = {name: self.card(name) for name in stage.trainings}
        return {"arguments": list(stage.arguments), "presets": cards}


def _inputs_of_training(training: Training) -> dict[str, Any]:
    """Returns what makes a training what it is."""
    return {"arguments": list(training.arguments)}


def _processors() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(place: Path) -> dict[str, Any]:
    """Returns the record of a stage; an empty one where there is none."""
    try:
        record = json.loads((place / _RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(place: Path, record: Mapping[str, Any]) -> None:
    """Writes the record of a stage."""
    evaluation.write_files({_RECORD: json.dumps(record, indent=2).encode()}, place)
