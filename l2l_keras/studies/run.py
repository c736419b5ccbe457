"""A whole study: specialise, compare, transfer, and report."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from l2l_keras import arguments, folder_lock
from l2l_keras.command_runner import CommandRunner
from l2l_keras.evaluation.tune import ALL_BASELINES
from l2l_keras.progress import Progress, Timer
from l2l_keras.studies.explain import explain
from l2l_keras.studies.outcome import Decision, Outcome, outcome
from l2l_keras.studies.plan import Plan, load
from l2l_keras.studies.report import Report
from l2l_keras.studies.stages import Settings, Stages
from l2l_keras.studies.wording import LANGUAGES


class Study(NamedTuple):
    """What `study` returns.

    Attributes:
        decision: Whether to adopt the specialised optimizer.
        verdict: The decision and its reasons, in sentences.
        preset: Folder of the specialised preset, for `LearnedOptimizer.from_preset`.
        report: Path of the report.
        outcome: All results.

    Example:
        >>> study = l2l_keras.study("study.py", "my_study")  # doctest: +SKIP
        >>> optimizer = l2l_keras.LearnedOptimizer.from_preset(study.preset)  # doctest: +SKIP
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
    baselines: Sequence[str] = tuple(ALL_BASELINES),
    cost_per_hour: float | None = None,
    lang: str = "en",
    jobs: int = 1,
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
        baselines: Names of the optimizers to compare with. Defaults to all of
            `l2l_keras.evaluation.ALL_BASELINES`.
        cost_per_hour: What an hour of the machine costs, to tell break-even in money. Defaults to
            None.
        lang: Language of the report, `"en"` (default) or `"ja"`.
        jobs: How many problems to work on at a time, each in a process of one to two gigabytes;
            more than one needs a `plan` in a file. Defaults to 1.
        progress: Called with a line of text as the work goes on. Defaults to `print`.

    Returns:
        The decision, and where everything is.

    Raises:
        ValueError: If an argument is not as described, or the folder holds another study.
        FolderInUseError: If another process works in the folder.
        StageError: If one of several jobs fails.

    Example:
        >>> study = l2l_keras.study("study.py", "my_study", minutes=10)  # doctest: +SKIP
        >>> study.decision  # doctest: +SKIP
        <Decision.ADOPT: 'adopt'>

    Source: Wichrowska et al., "Learned optimizers that scale and generalize" (2017), on transfer to
    other problems; costs as in Metz et al., "VeLO" (2022).
    """
    arguments.one_of("lang", lang, LANGUAGES)
    if arguments.count("jobs", jobs) > 1 and not isinstance(plan, str):
        raise ValueError(
            "Several jobs need the file of the plan, such as 'study.py'. "
            f"Received: jobs={jobs}, plan={plan!r}"
        )
    settings = Settings(minutes, start, seeds, tuning_seeds, tuple(baselines))
    folder = Path(output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock.locked(folder):
        own = load(plan) if isinstance(plan, str) else plan
        stages = Stages(own, settings, folder, progress)
        runner = CommandRunner(jobs, progress)
        command = _command(str(plan), folder, settings)

        def run(stage: str, told: Progress) -> None:
            if jobs > 1:
                runner.run([*command, f"--stage={stage}"])
            else:
                stages.run(stage)
            told(f"{stage}: done")

        preparations, problems = stages.groups
        _each(functools.partial(run, told=progress), preparations, runner)
        left = Timer(len(problems), progress)
        _each(functools.partial(run, told=left.after(1)), problems, runner)
        found = outcome(stages)
        explanation = explain(str(found.training.preset), own.task, own.steps)
        report = Report(found, explanation, lang, cost_per_hour)
        report.write(folder)
    decision, sentences = report.verdict()
    text = " ".join([f"{decision}.", *sentences])
    return Study(found.decision, text, found.training.preset, folder / "report.html", found)


def run_stage(plan: Plan, output_dir: Path, settings: Settings, stage: str) -> None:
    """Runs one stage of a study in a folder that `study` has locked.

    Args:
        plan: The problems.
        output_dir: The folder.
        settings: How much the study does.
        stage: `"tune"`, `"specialise"`, or `"run NAME"` with the name of a problem.

    Example:
        >>> plan = l2l_keras.studies.load("study.py")  # doctest: +SKIP
        >>> settings = l2l_keras.studies.Settings(minutes=2)  # doctest: +SKIP
        >>> l2l_keras.studies.run_stage(plan, "my_study", settings, "tune")  # doctest: +SKIP
    """
    Stages(plan, settings, output_dir, print).run(stage)


def _each(run: Callable[[str], None], stages: Sequence[str], runner: CommandRunner) -> None:
    """Runs stages: one after the other in this thread, or several at a time."""
    if runner.jobs > 1:
        runner.each(run, stages)
    else:
        for stage in stages:
            run(stage)


def _command(plan: str, folder: Path, settings: Settings) -> list[str]:
    """Returns the command that runs a stage, but for the name of that."""
    return [
        "l2l-transfer",
        f"--study={plan}",
        f"--output_dir={folder}",
        f"--minutes={settings.minutes}",
        f"--rule={settings.start}",
        f"--seeds={settings.seeds}",
        f"--tuning_seeds={settings.tuning_seeds}",
        *(f"--baseline={name}" for name in settings.baselines),
    ]
