"""A folder in which the stages of figures leave their files.

The output folder of each stage, `trainings/NAME` or `evaluations/NAME`, has a file `stage.json`
that records what it was made from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_keras import parameter_groups, presets
from l2l_keras.command_runner import StageError
from l2l_keras.evaluation.files import write_files
from l2l_keras.reproduction.stages import Stage

_RECORD = "stage.json"


class Workspace:
    """Says where the files of stages are, which command makes them, and whether they are there.

    Args:
        folder: The folder, which must exist.
        given: Presets to take instead of meta-training, by name of the training: the name of a
            shipped preset, or a folder. Defaults to none.
        data_arguments: Flags that say where data sets are, for all stages.
        training_arguments: Further flags of `l2l-meta-train` that do not change the result, such
            as the number of threads.

    Example:
        >>> workspace = l2l_keras.reproduction.Workspace("figures", {"lstm": "quadratic"})
        >>> workspace.preset("lstm"), workspace.preset("mnist_mlp")
        ('quadratic', 'figures/trainings/mnist_mlp/preset')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        given: Mapping[str, str] | None = None,
        data_arguments: Sequence[str] = (),
        training_arguments: Sequence[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.given = dict(given or {})
        self._data_arguments = tuple(data_arguments)
        self._training_arguments = tuple(training_arguments)

    def path(self, stage: Stage) -> Path:
        """Returns the output folder of a stage."""
        return self.folder / stage.folder / stage.name

    def preset(self, training: str) -> str:
        """Returns the preset of a training by its name: the given one, or the one that it makes."""
        return self.given.get(training, str(self.folder / "trainings" / training / "preset"))

    def load(self, training: str) -> tuple[presets.Rules, dict[str, Any]]:
        """Loads the preset of a training by name: its rule, or groups of rules, and its card."""
        return presets.load_preset(self.preset(training))

    def label(self, training: str) -> str:
        """Returns how figures name a rule, with its class, by the training's name."""
        classes = {type(r).__name__ for r in parameter_groups.only_rules(self.load(training)[0])}
        return f"{training} ({', '.join(sorted(classes))})"

    def command(self, stage: Stage) -> list[str]:
        """Returns the complete command of a stage."""
        return [
            stage.program,
            *(f"--preset={name}={self.preset(name)}" for name in stage.trainings),
            *stage.arguments,
            *self._data_arguments,
            f"--output_dir={self.path(stage)}",
            *(("--noevaluate", *self._training_arguments) if stage.resumable else ()),
        ]

    def finished(self, stage: Stage) -> bool:
        """Returns whether the outputs of a stage exist, made from its current inputs."""
        if stage.resumable and stage.name in self.given:
            return True
        return stage.complete(self.path(stage)) and self._read(stage)[0] == self._inputs(stage)

    def begin(self, stage: Stage) -> list[str]:
        """Records that a stage is about to run, and returns the command to run.

        Raises:
            StageError: If the folder of a training holds a run with other flags, which is kept.
        """
        path = self.path(stage)
        begun = stage.resumable and (path / "settings.json").exists()
        if begun and self._read(stage)[0] != self._inputs(stage):
            raise StageError(
                f"{str(path)!r} holds a run with other flags: remove it, or name another folder"
            )
        # The outputs of an earlier evaluation are about to be replaced.
        (path / _RECORD).unlink(missing_ok=True)
        if stage.resumable:
            self._write(stage, self._inputs(stage))
        return [*self.command(stage), *["--resume"] * begun]

    def finish(self, stage: Stage, seconds: float) -> None:
        """Records what a finished stage was made from, and its wall time."""
        self._write(stage, {**self._inputs(stage), "seconds": seconds})

    def seconds(self, stage: Stage) -> float | None:
        """Returns the wall time of an evaluation, or None if it is not finished."""
        return self._read(stage)[1]

    def _inputs(self, stage: Stage) -> dict[str, Any]:
        """Returns what a stage is made from; presets are told apart by their cards."""
        cards = {name: self.load(name)[1] for name in stage.trainings}
        return {"arguments": list(stage.arguments), **({"presets": cards} if cards else {})}

    def _read(self, stage: Stage) -> tuple[dict[str, Any], float | None]:
        """Returns the recorded inputs and wall time of a stage; nothing if there is no record."""
        try:
            record = dict(json.loads((self.path(stage) / _RECORD).read_bytes()))
        except (OSError, TypeError, ValueError):
            return {}, None
        seconds = record.pop("seconds", None)
        return record, seconds

    def _write(self, stage: Stage, record: Mapping[str, Any]) -> None:
        """Writes the record of a stage."""
        write_files({_RECORD: record}, self.path(stage))
