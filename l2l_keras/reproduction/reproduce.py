"""Makes a figure: runs its stages and draws it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from l2l_keras.command_runner import CommandRunner
from l2l_keras.evaluation.files import versions, write_files
from l2l_keras.reproduction.figures import Figure
from l2l_keras.reproduction.stages import Stage
from l2l_keras.reproduction.workspace import Workspace


def reproduce(
    name: str,
    figure: Figure,
    workspace: Workspace,
    runner: CommandRunner,
    settings: dict[str, Any],
) -> list[Path]:
    """Runs the stages of a figure whose outputs do not exist yet, and writes the figure.

    Args:
        name: Name of the figure and of its files.
        figure: The figure.
        workspace: Where its stages and the figure are written.
        runner: Runs the commands of the stages.
        settings: Further content of the JSON file.

    Returns:
        Paths of `NAME.png`, `NAME.csv`, `NAME.json` and further files of the figure.

    Raises:
        StageError: If a stage fails.
        ValueError: If the output of a stage cannot be read.
        OSError: If the folder cannot be written to.

    Example:
        >>> from l2l_keras import reproduction
        >>> figure = reproduction.get("update_maps")
        >>> presets = dict.fromkeys((t.name for t in figure.trainings), "quadratic")
        >>> workspace = reproduction.Workspace("figures", presets)
        >>> runner = reproduction.CommandRunner(write=lambda line: None)
        >>> paths = reproduction.reproduce("update_maps", figure, workspace, runner, settings={})
        >>> [path.name for path in paths]
        ['update_maps.png', 'update_maps.csv', 'update_maps.json']
    """
    stages = (*figure.trainings, *figure.evaluations)

    def run(stage: Stage) -> None:
        number = stages.index(stage) + 1
        runner.write(f"{name}, stage {number} of {len(stages)}: {stage.folder}/{stage.name}")
        if workspace.finished(stage):
            runner.write("exists already", stage.name)
            return
        start = time.monotonic()
        runner.run(workspace.begin(stage), stage.name)
        seconds = round(time.monotonic() - start, 1)
        workspace.finish(stage, seconds)
        runner.write(f"done in {seconds:.0f} s", stage.name)

    runner.each(run, figure.trainings)
    runner.each(run, figure.evaluations)  # They need the rules.
    output = figure.draw(workspace)
    summary = _summary(name, figure, workspace, {**settings, **output.summary})
    files = {**output.files(name), f"{name}.json": summary}
    return write_files(files, workspace.folder)


def _summary(
    name: str, figure: Figure, workspace: Workspace, content: dict[str, Any]
) -> dict[str, Any]:
    """Returns settings, commands, cards and results of a figure."""
    trainings: dict[str, dict[str, Any]] = {}
    for training in figure.trainings:
        command = shlex.join(workspace.command(training))
        trainings[training.name] = {
            "preset": workspace.preset(training.name),
            "command": None if training.name in workspace.given else command,
            "card": workspace.load(training.name)[1],
        }
    seconds = [training["card"].get("wall_seconds") for training in trainings.values()]
    seconds += [workspace.seconds(stage) for stage in figure.evaluations]
    return {
        "figure": name,
        "trainings": trainings,
        **content,
        "wall_seconds": round(sum(s or 0.0 for s in seconds), 1),
        "versions": versions(),
    }
