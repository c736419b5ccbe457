"""Makes a figure: runs its stages one after another, and draws it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from l2l_keras import evaluation
from l2l_keras.meta.callbacks import duration
from l2l_keras.reproduction.figures import Figure
from l2l_keras.reproduction.stages import Evaluation, Stage, Training, Workshop


def reproduce(
    name: str, figure: Figure, workshop: Workshop, settings: dict[str, Any]
) -> list[Path]:
    """Runs the stages of a figure whose outputs are not there yet, and writes the figure.

    Args:
        name: Name of the figure and of its files.
        figure: The figure.
        workshop: Where its stages are run and its files are written.
        settings: More to record in its JSON file.

    Returns:
        Paths of `NAME.png`, `NAME.csv`, `NAME.json` and what else the figure has.

    Raises:
        StageError: If a stage fails.
        ValueError: If the output of a stage cannot be read.
        OSError: If the folder cannot be written to.

    Example:
        >>> figure = l2l_keras.reproduction.get("quadratics", small=True)
        >>> with l2l_keras.reproduction.Workshop(".") as workshop:  # doctest: +SKIP
        ...     l2l_keras.reproduction.reproduce("quadratics", figure, workshop, {})
    """
    stages: list[Stage] = [*figure.trainings, *figure.evaluations]
    taken: list[float] = []

    def run(stage: Stage) -> None:
        place = workshop.place(stage).relative_to(workshop.folder)
        number = stages.index(stage) + 1
        workshop.write(f"{name}, stage {number} of {len(stages)}: {place}")
        start = time.monotonic()
        if not workshop.run(stage):
            made = workshop.preset(stage.name) if isinstance(stage, Training) else place
            workshop.write(f"is there: {made}", stage)
            return
        seconds = time.monotonic() - start
        if isinstance(stage, Evaluation):
            taken.append(seconds)
        workshop.write(f"done in {duration(seconds)}{_left(figure, taken, workshop)}", stage)

    # Evaluations need the rules.
    for kind in (figure.trainings, figure.evaluations):
        _for_each(run, kind, workshop)
    output = figure.draw(workshop)
    files = {
        f"{name}.png": output.picture(),
        f"{name}.csv": output.table(),
        **{f"{name}{ending}": content for ending, content in output.extras.items()},
        f"{name}.json": _summary(name, figure, workshop, {**settings, **output.summary}),
    }
    return evaluation.write_files(files, workshop.folder)


def _for_each(run: Callable[[Any], None], stages: Sequence[Stage], workshop: Workshop) -> None:
    """Runs stages, as many at a time as the workshop may."""
    pool = futures.ThreadPoolExecutor(workshop.jobs)
    try:
        for done in futures.as_completed([pool.submit(run, stage) for stage in stages]):
            done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        workshop.stop()
        raise
    finally:
        pool.shutdown()


def _left(figure: Figure, taken: Sequence[float], workshop: Workshop) -> str:
    """Says how long the rest takes, where that can be known: from evaluations before it."""
    if not taken:
        return ""
    count = sum(not workshop.finished(stage) for stage in figure.evaluations)
    seconds = count * sum(taken) / len(taken) / workshop.jobs
    return f", about {duration(seconds)} left"


def _summary(name: str, figure: Figure, workshop: Workshop, content: dict[str, Any]) -> bytes:
    """Returns all that there is to say about a figure as JSON."""
    stages: list[Stage] = [*figure.trainings, *figure.evaluations]
    seconds = [workshop.seconds(stage) or 0.0 for stage in stages]
    summary = {
        "figure": name,
        "trainings": {
            training.name: {
                "preset": workshop.preset(training.name),
                "command": None
                if workshop.is_given(training.name)
                else shlex.join(workshop.command(training)),
                "card": workshop.card(training.name),
            }
            for training in figure.trainings
        },
        **content,
        "wall_seconds": round(sum(seconds), 1),
        "versions": evaluation.versions(),
    }
    text = json.dumps(evaluation.finite(summary), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
