r"""Compares learned optimizers with Adam, RMSprop, NAG and SGD at their best learning rates.

Every optimizer minimizes the same fresh optimizees, with the same minibatches. The baselines'
learning rates are chosen first, on other optimizees, for the lowest final loss; learned optimizers
are used as they are. Prints a table; --output_dir also gets the curves and a figure of them.

A preset of your own on random quadratic functions; two presets with a report; a preset on networks
that it was not trained on; the baselines alone; one baseline, and a preset by another name:

  l2l-evaluate --preset=my_rule --task=quadratic
  l2l-evaluate --preset=my_rule --preset=other_rule --task=mnist_mlp --steps=200 \
      --data_dir=~/tensorflow_datasets --output_dir=report
  l2l-evaluate --preset=mnist_mlp --task=mnist_mlp --task_option="layers=(40,)" \
      --task_option=activation=relu
  l2l-evaluate --task=digits_mlp
  l2l-evaluate --task=digits_mlp --baseline=Adam --preset=mine=my_rule/preset

A preset on the testbed: varied problems that no shipped preset was trained on, each in runs of 100,
1,000 and 10,000 steps, or fewer and shorter ones. Baselines are tuned for each of them, once: that
takes hours, and is cached.

  l2l-evaluate --task=testbed --preset=my_rule --output_dir=report
  l2l-evaluate --task=testbed --preset=my_rule --steps=100 --task_option="multiples=(1, 10)" \
      --task_option="problems=('deep_relu', 'series_gru')" --task_option=cache_dir=my_cache

A mixture is evaluated likewise: on the test data of each of its validation tasks, in runs of one
length, without a cache.

  l2l-evaluate --task=general --preset=my_rule --steps=1000 --data_dir=~/tensorflow_datasets
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from l2l_keras.scripts import _console

if TYPE_CHECKING:
    from l2l_keras import presets, tasks

_TESTBED = "testbed"

FLAGS = flags.FlagValues()
define = _console.define_in(FLAGS)
runs = _console.define_in(FLAGS, "Optimizers and runs")
define.multi_string(
    "preset",
    [],
    "Learned optimizer: the name of a shipped preset, or a folder; NAME=... shows it by another "
    "name. Repeatable.",
)
runs.multi_enum(
    "baseline",
    _console.BASELINES,
    _console.BASELINES,
    "Optimizer to compare with, its learning rate tuned. All by default. Repeatable.",
)
define.string(
    "task",
    "quadratic",
    f"What to minimize: {', '.join(_console.TASKS)}, {_TESTBED}, or a task or mixture of your own "
    "as package.module:function or path/to/file.py:function.",
)
define.multi_string("task_option", [], "Argument of the task, such as layers=(40,). Repeatable.")
define.count("steps", 100, "Updates of a run.")
runs.count(
    "seeds",
    None,
    "Fresh test optimizees; each of `quadratic` has many functions. 10 by default, 3 of each "
    "problem of the testbed or a mixture.",
)
runs.count(
    "tuning_seeds",
    None,
    "Validation optimizees on which the baselines' learning rates are chosen. 3 by default, 1 of "
    "each problem of the testbed or a mixture.",
)
runs.integer("seed", 0, "First seed of test and of validation optimizees.", lower_bound=0)
runs.boolean("guard", False, "Whether presets have a guard, which falls back to Adam.")
define.string("data_dir", None, "Folder of the data sets, for a task that reads one.")
define.boolean("download", True, "Whether to download a missing data set.")
define.string(
    "output_dir",
    None,
    "Folder for table.txt, table.md, curves.csv, curves.png and results.json, or testbed.md, "
    "testbed.png and testbed.json.",
)


def main(argv: list[str]) -> None:
    """Makes the comparison that the flags describe, and prints its table."""
    del argv
    from l2l_keras import evaluation, tasks

    # Checked before the long work, whose results would be lost.
    output_dir = _console.writable_directory(FLAGS.output_dir) if FLAGS.output_dir else None
    learned, cards = _load_presets(FLAGS.preset)
    task = None
    if FLAGS.task != _TESTBED:
        task = _console.get_task(FLAGS.task, FLAGS.data_dir, FLAGS.download, FLAGS.task_option)
    if task is None or isinstance(task, tasks.Mixture):
        scores = _evaluate_on_several(task, learned)
        if not scores:
            print("The baselines are tuned and cached: name a --preset to compare.")
            return
        print(evaluation.testbed.table(scores), end="")
        write = functools.partial(evaluation.testbed.write_report, scores)
    else:
        comparison = evaluation.compare(
            task,
            learned,
            baselines={name: evaluation.ALL_BASELINES[name] for name in FLAGS.baseline},
            schedules={name: card.get("schedule", "constant") for name, card in cards.items()},
            **_runs(seeds=10, tuning_seeds=3),
        )
        print(evaluation.table(comparison), end="")
        write = functools.partial(evaluation.write_report, comparison)
    if output_dir is None:
        return
    own_flags = {name: FLAGS[name].value for name in FLAGS if name not in flags.FLAGS}
    try:
        paths = write(output_dir, {"flags": own_flags, "presets": cards})
    except OSError as error:
        raise _console.UserError(f"The report could not be written: {error}") from error
    # The last line of results is the verdict.
    names = ", ".join(path.name for path in paths)
    print(f"wrote {names} in {output_dir}", file=sys.stderr)


def _evaluate_on_several(mixture: tasks.Mixture | None, learned: dict[str, presets.Rules]) -> list:
    """Compares presets with baselines on the validation tasks of a mixture, or on the testbed."""
    from l2l_keras import evaluation

    if FLAGS["baseline"].present:
        raise _console.UsageError(
            f"The testbed and mixtures have all baselines. Received: --baseline={FLAGS.baseline}"
        )
    if mixture and not learned:
        raise _console.UsageError("On a mixture, name a --preset to compare.")
    options = {} if mixture else _console.parse_options("task_option", FLAGS.task_option)
    if unknown := sorted(set(options) - {"multiples", "problems", "cache_dir"}):
        raise _console.UsageError(
            "--task_option: the testbed takes multiples, problems and cache_dir. "
            f"Received: {', '.join(unknown)}"
        )
    options |= {**_runs(seeds=3, tuning_seeds=1), "download": FLAGS.download}
    options["data_dir"] = FLAGS.data_dir and os.path.expanduser(FLAGS.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        if mixture:
            options |= {"problems": mixture.validation, "multiples": (1,), "cache_dir": folder}
        try:
            return list(evaluation.testbed.evaluate(learned, **options))
        except ValueError as error:
            raise _console.UsageError(str(error)) from error
        except FileNotFoundError as error:
            raise _console.UserError(str(error)) from error
        except OSError as error:
            raise _console.UserError(f"The cache cannot be used: {error}") from error


def _runs(seeds: int, tuning_seeds: int) -> dict[str, Any]:
    """Returns the arguments of both sorts of comparisons, with default numbers of seeds."""
    first = FLAGS.seed
    return {
        "steps": FLAGS.steps,
        "seeds": range(first, first + (FLAGS.seeds or seeds)),
        "tuning_seeds": range(first, first + (FLAGS.tuning_seeds or tuning_seeds)),
        "guard": FLAGS.guard,
        "progress": functools.partial(print, file=sys.stderr, flush=True),
    }


def _load_presets(names: list[str]) -> tuple[dict, dict]:
    """Returns the rules and the cards of presets, by the name to show."""
    learned, cards = {}, {}
    for name in names:
        label, equals, preset = name.partition("=")
        if not equals or os.path.isdir(name):  # Folders may have such names.
            label, preset = "", name
        rule, card = _console.load_preset(preset)
        shown = label or Path(preset).name
        if shown in learned and not label:  # Two folders of the same name.
            shown = preset
        if shown in learned or shown in _console.BASELINES:
            raise _console.UsageError(
                f"Two optimizers must not have the same name. Received: --preset={name}"
            )
        learned[shown], cards[shown] = rule, card
    return learned, cards


def console() -> None:
    """Entry point of `l2l-evaluate`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
