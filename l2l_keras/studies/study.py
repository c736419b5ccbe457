"""A whole study: specialise, compare, transfer, and report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from l2l_keras import arguments, folder_lock
from l2l_keras.progress import Progress
from l2l_keras.studies.explain import explain
from l2l_keras.studies.outcome import Decision, Outcome, outcome
from l2l_keras.studies.plan import Plan, load
from l2l_keras.studies.report import Report
from l2l_keras.studies.stages import Settings, Stages
from l2l_keras.studies.wording import LANGUAGES, words


class Study(NamedTuple):
    """What `study` returns.

    Attributes:
        decision: Whether to adopt the specialised optimizer.
        verdict: The decision and its reasons, in sentences.
        preset: Folder of the specialised preset, for `LearnedOptimizer.from_preset`.
        report: Path of the report.
        outcome: All results.
    """

    decision: Decision
    verdict: str
    preset: Path
    report: Path
    outcome: Outcome


def study(
    plan: Plan | str,
    output_dir: str | os.PathLike[str],
    minutes: float = 10.0,
    start: str = "general-fast",
    seeds: int = 5,
    tuning_seeds: int = 2,
    cost_per_hour: float | None = None,
    lang: str = "en",
    progress: Progress = print,
) -> Study:
    """Finds out whether a learned optimizer pays for your models, and writes a report.

    A preset is meta-trained further on a small problem that represents yours, to lower the loss on
    examples held out. It is then compared with other optimizers, tuned on that problem, and on each
    problem to transfer to with them as they were tuned and tuned anew. What is finished is kept:
    the same call goes on where an interrupted one has stopped.

    Args:
        plan: The problems, an `l2l_keras.studies.Plan`; or the file or function that returns it
            (see `l2l_keras.studies.load`).
        output_dir: Where everything is written.
        minutes: About how long to meta-train. Defaults to 10.
        start: The preset to specialise, by name or folder. Defaults to `"general-fast"`.
        seeds: Fresh models of each problem to compare on. Defaults to 5.
        tuning_seeds: Other models, to tune learning rates on. Defaults to 2.
        cost_per_hour: What an hour of the machine costs, to tell break-even in money. Defaults to
            None.
        lang: Language of the report, `"en"` (default) or `"ja"`.
        progress: Called with a line of text as the work goes on. Defaults to `print`.

    Returns:
        The decision, and where everything is.

    Raises:
        ValueError: If an argument is not as described, or the folder holds another study.
        FolderInUseError: If another process works in the folder.

    Example:
        >>> study = l2l_keras.study("study.py", "my_study", minutes=10)  # doctest: +SKIP
        >>> study.decision  # doctest: +SKIP
        <Decision.ADOPT: 'adopt'>

    Source: Wichrowska et al., "Learned optimizers that scale and generalize" (2017), on transfer to
    other problems; costs as in Metz et al., "VeLO" (2022).
    """
    arguments.positive("minutes", minutes)
    arguments.count("seeds", seeds)
    arguments.count("tuning_seeds", tuning_seeds)
    arguments.one_of("lang", lang, LANGUAGES)
    folder = Path(output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock.locked(folder):
        own = load(plan) if isinstance(plan, str) else plan
        settings = Settings(minutes, start, seeds, tuning_seeds)
        stages = Stages(own, settings, folder, progress)
        for stage in stages.names():
            stages.run(stage)
        found = outcome(stages)
        pictures = explain(str(found.training.preset), own.task, own.steps, words(lang))
        report = Report(found, pictures, lang, cost_per_hour)
        report.write(folder)
    decision, sentences = report.verdict()
    text = " ".join([f"{decision}.", *sentences])
    return Study(found.decision, text, found.training.preset, folder / "report.html", found)
