r"""Finds out whether a learned optimizer pays for your models, and for others like them.

Write a study: a file with a small problem that represents yours, and with problems to transfer to.

  l2l-transfer --init=study.py

writes one that runs as it is. Then

  l2l-transfer --study=study.py --output_dir=my_study

specialises a preset to the problem (--minutes), compares it with tuned optimizers there, and on
every problem to transfer to, with them as they were tuned and tuned anew. The folder then holds
report.html, to decide from, with its charts (PNG) and numbers (CSV, JSON), and the specialised
optimizer (specialised/preset). The same command continues an interrupted study.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from pathlib import Path

from absl import flags

from l2l_keras.scripts import _console

FLAGS = flags.FlagValues()
define = _console.define_in(FLAGS)
define.string("study", None, "The study: file.py, for its function make_plan, or file.py:function.")
define.string("init", None, "Write a study to start from into this file, and end.")
define.string("output_dir", "l2l_study", "Folder of the report and of all that it needs.")
define.positive("minutes", 10.0, "About how long to meta-train.")
define.string("rule", "general-fast", "The preset to specialise, by name or folder.")
define.enum("lang", "en", ["en", "ja"], "Language of the report.")
define.positive("cost_per_hour", None, "What an hour of this machine costs, in your currency.")
define = _console.define_in(FLAGS, "Runs")
define.count("seeds", 5, "Fresh models of each problem to compare on.")
define.count("tuning_seeds", 2, "Models to tune learning rates on.")
define.multi_enum(
    "baseline",
    _console.BASELINES,
    _console.BASELINES,
    "Optimizer to compare with, its learning rate tuned. All by default. Repeatable.",
)
define.count("jobs", 1, "Problems at a time, each in a process of one to two gigabytes.")
define.string("stage", None, "Run a single stage only, as --jobs does.")


def main(argv: list[str]) -> None:
    """Runs the study that the flags name."""
    del argv
    if FLAGS.init is not None:
        _write_template(Path(FLAGS.init))
        return
    if FLAGS.study is None:
        raise _console.UsageError(
            "Expected --study=FILE; --init=study.py writes one to start from. Received: none"
        )
    import l2l_keras
    from l2l_keras import command_runner, folder_lock

    folder = _console.writable_directory(FLAGS.output_dir)
    # Errors in the file come with their place.
    plan = _console.call_users_code("study", l2l_keras.studies.load, FLAGS.study)
    settings = l2l_keras.studies.Settings(
        FLAGS.minutes, FLAGS.rule, FLAGS.seeds, FLAGS.tuning_seeds, tuple(FLAGS.baseline)
    )
    try:
        if FLAGS.stage is not None:
            l2l_keras.studies.run_stage(plan, folder, settings, FLAGS.stage)
            return
        study = l2l_keras.study(
            FLAGS.study if FLAGS.jobs > 1 else plan,
            folder,
            **dataclasses.asdict(settings),
            cost_per_hour=FLAGS.cost_per_hour,
            lang=FLAGS.lang,
            jobs=FLAGS.jobs,
            progress=functools.partial(print, flush=True),
        )
    except (folder_lock.FolderInUseError, command_runner.StageError) as error:
        command = _console.command_line("l2l-transfer", FLAGS)
        raise _console.UserError(f"{error}; then continue with: {command}") from error
    except ValueError as error:
        raise _console.UsageError(str(error)) from error
    except KeyboardInterrupt:
        command = _console.command_line("l2l-transfer", FLAGS)
        raise _console.Interrupted(f"interrupted; continue with: {command}") from None
    print(f"\nThe optimizer:  {study.preset}\nThe report:     {study.report}\n\n{study.verdict}")


def _write_template(path: Path) -> None:
    """Writes a study to start from."""
    if path.exists():
        raise _console.UserError(f"Expected a file that does not exist. Received: {str(path)!r}")
    template = importlib.resources.files("l2l_keras.studies").joinpath("template.py")
    path.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    print(f"Wrote {path}. Next: l2l-transfer --study={path}")


def console() -> None:
    """Entry point of `l2l-transfer`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
