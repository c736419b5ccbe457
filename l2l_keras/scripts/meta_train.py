r"""Meta-trains an update rule, and compares it with tuned Adam, RMSprop, NAG and SGD.

Without any flag: the paper's LSTM, on small networks for scikit-learn's 8x8 digits, in under three
minutes and without downloads:

  l2l-meta-train

The paper's quadratics and MNIST:

  l2l-meta-train --task=quadratic --epochs=40
  l2l-meta-train --task=mnist_mlp --data_dir=~/tensorflow_datasets --output_dir=my_mnist

The paper's pictures in the style of a painting, of a folder with train, validation and test:

  l2l-meta-train --task=neural_art --task_option=content_dir=photographs \
      --task_option=style=starry_night.jpg --horizon=128 --unroll=32 --rule=momentum_lstm \
      --rule_option=rate=0.3 --rule_option=adaptive_rate=0.005 --second_derivatives \
      --meta_loss=log --step_weights=linear --meta_clip=0.05 --epochs=14 --episodes=5

On your own model: a file with a function that returns an l2l_keras.tasks.KerasTask:

  l2l-meta-train --task=my_task.py:make_task --output_dir=my_rule

An interrupted run goes on, to the same weights, with:

  l2l-meta-train --resume --output_dir=my_rule

The folder then holds the rule as a preset (preset/, with its card), the curves (curves.png and
curves.csv), the table, results.json, and history.csv of meta-training. Use the rule with
l2l_keras.LearnedOptimizer.from_preset("my_rule/preset").
"""

from __future__ import annotations

import datetime
import functools
import json
import math
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
from absl import flags

from l2l_keras import evaluation, meta, parameter_groups, presets, rules, tasks
from l2l_keras.scripts import _console

FLAGS = flags.FlagValues()

_SETTINGS = "settings.json"
_BACKUP = "backup"


# Flags that make a run what it is: a resumed one takes them from its folder.
_OF_THE_RUN: list[flags.FlagHolder] = []


def _define(kind, name, default, text, of_the_run=True, **kwargs):
    holder = kind(name=name, default=default, help=text, flag_values=FLAGS, **kwargs)
    if of_the_run:
        _OF_THE_RUN.append(holder)
    return holder


_TASK = _define(
    flags.DEFINE_string,
    "task",
    "digits_mlp",
    f"What to train on: {', '.join(tasks.names())}, or a task of your own as "
    "package.module:function or path/to/file.py:function.",
)
_OPTIONS = _define(
    flags.DEFINE_multi_string,
    "task_option",
    [],
    "Argument of the task as name=value, such as layers=(40,) of mnist_mlp. Repeatable.",
)
_RULE = _define(
    flags.DEFINE_string,
    "rule",
    "coordinatewise_lstm",
    "The update rule: coordinatewise_lstm (the paper's), momentum_lstm (which sets the step sizes "
    "of momentum), rnnprop (which sees gradients relative to their usual size), tensorwise_lstm "
    "(which decides once a tensor, at about Adam's price), or a preset, by name or folder, to go "
    "on from.",
)
_RULE_OPTIONS = _define(
    flags.DEFINE_multi_string,
    "rule_option",
    [],
    "Argument of the rule as name=value, such as units=(20,20), or preprocessing=none of "
    "coordinatewise_lstm. Repeatable. Not with a preset.",
)
_GROUPS = _define(
    flags.DEFINE_multi_string,
    "group",
    [],
    "Pattern (a regular expression) of the variables that get a rule of their own, such as conv; "
    "the last one, '.*', takes the rest. Repeatable. By default, one rule for all.",
)
_HORIZON = _define(
    flags.DEFINE_integer, "horizon", 100, "Inner steps of an episode.", lower_bound=1
)
_LONGEST = _define(
    flags.DEFINE_integer,
    "longest_horizon",
    None,
    "If set, each episode's horizon is drawn between --horizon and this, its logarithm uniformly.",
    lower_bound=1,
)
_CURRICULUM = _define(
    flags.DEFINE_list,
    "curriculum",
    [],
    "If set, longest horizons that episodes have one after another, such as 100,300,1000: they "
    "become longer as the rule stops learning.",
)
_UNROLL = _define(
    flags.DEFINE_integer,
    "unroll",
    20,
    "Inner steps that back-propagation spans; a divisor of --horizon and --longest_horizon.",
    lower_bound=1,
)
_PARALLEL = _define(
    flags.DEFINE_integer, "parallel", 1, "Optimizees side by side in an update.", lower_bound=1
)
_OPTIMIZEES = _define(
    flags.DEFINE_integer,
    "optimizees",
    None,
    "How many optimizees of each task there are, which come again with other minibatches. By "
    "default, each episode has a fresh one.",
    lower_bound=1,
)
_EPOCHS = _define(
    flags.DEFINE_integer, "epochs", 15, "Epochs, each followed by a validation.", lower_bound=1
)
_EPISODES = _define(
    flags.DEFINE_integer, "episodes", 20, "Episodes (fresh optimizees) an epoch.", lower_bound=1
)
_VALIDATION = _define(
    flags.DEFINE_integer,
    "validation_episodes",
    5,
    "Validation optimizees; the rule that does best on them is kept.",
    lower_bound=1,
)
_LEARNING_RATE = _define(
    flags.DEFINE_float,
    "meta_learning_rate",
    3e-3,
    "Adam's learning rate on the rule's weights at the start; it falls to a hundredth, as a "
    "cosine.",
    lower_bound=0.0,
)
_CLIP = _define(
    flags.DEFINE_float,
    "meta_clip",
    1.0,
    "Largest global norm of a meta-gradient.",
    lower_bound=1e-12,
)
_EMA_MOMENTUM = _define(
    flags.DEFINE_float,
    "ema_momentum",
    None,
    "If set, an exponential moving average of the rule's weights is validated and kept; this is "
    "how much of it is left after an update, such as 0.998. Worth most where meta-gradients are "
    "noisy.",
    lower_bound=0.0,
    upper_bound=1.0 - 1e-12,
)
_META_LOSS = _define(
    flags.DEFINE_enum,
    "meta_loss",
    "mean",
    "What is minimised: the mean loss of an episode, that of its logarithm, the logarithm of the "
    "mean over functions side by side, that of a window's mean, the same of the part of the "
    "initial loss that is left, or the mean of that part.",
    enum_values=sorted(meta.META_LOSSES),
)
_STEP_WEIGHTS = _define(
    flags.DEFINE_enum,
    "step_weights",
    "uniform",
    "How an episode's steps count: all alike, growing towards its end, or its last fifth only.",
    enum_values=sorted(meta.STEP_WEIGHTS),
)
_RANDOM_SCALE = _define(
    flags.DEFINE_float,
    "random_scale",
    0.0,
    "Largest |log s| of a random rescaling of the optimizee's coordinates, which makes a rule "
    "more general.",
    lower_bound=0.0,
)
_RANDOM_SCALE_OF = _define(
    flags.DEFINE_enum,
    "random_scale_of",
    "coordinate",
    "Whether coordinates or whole tensors are rescaled.",
    enum_values=meta.RANDOM_SCALES,
)
_WINDOW_CLIP = _define(
    flags.DEFINE_float,
    "window_clip",
    None,
    "If set, the largest norm of the meta-gradient of one of the windows side by side.",
    lower_bound=1e-12,
)
_STAGGERED = _define(
    flags.DEFINE_boolean,
    "staggered",
    False,
    "Whether the first window of an episode begins after a random number of steps.",
)
_SECOND = _define(
    flags.DEFINE_boolean,
    "second_derivatives",
    False,
    "Whether to differentiate the optimizee's gradients too: the whole meta-gradient, at one "
    "Hessian-vector product a step. Learns more from long windows (--unroll). Not for models with "
    "batch normalisation.",
)
_CLIP_THROUGH_TIME = _define(
    flags.DEFINE_boolean,
    "clip_through_time",
    False,
    "Whether to keep what --second_derivatives brings from growing without bounds in long windows.",
)
_PES = _define(
    flags.DEFINE_integer,
    "pes_pairs",
    0,
    "If set, meta-gradients are estimated by persistent evolution strategies with so many pairs of "
    "inner loops, unbiased over whole episodes but noisy.",
    lower_bound=0,
)
_PES_SIGMA = _define(
    flags.DEFINE_float,
    "pes_sigma",
    0.01,
    "Standard deviation of what the rule's weights are moved by there.",
    lower_bound=1e-12,
)
_PES_REUSE_NOISE = _define(
    flags.DEFINE_boolean,
    "pes_reuse_noise",
    False,
    "Whether weights are moved by the same in all windows of an episode there: often less noisy.",
)
_IMITATED_RATE = _define(
    flags.DEFINE_float,
    "imitated_rate",
    None,
    "If set, the rule learns to do what Adam does at this learning rate, as a start to go on from "
    "(--rule=FOLDER).",
    lower_bound=1e-12,
)
_SEED = _define(
    flags.DEFINE_integer,
    "seed",
    0,
    "Seed of everything.",
    lower_bound=0,
    upper_bound=2**29 - 1,  # Those of tasks.
)
_EVALUATE = _define(
    flags.DEFINE_boolean,
    "evaluate",
    True,
    "Whether to compare with tuned baselines at the end.",
    of_the_run=False,
)
_SEEDS = _define(
    flags.DEFINE_integer,
    "seeds",
    10,
    "Fresh test optimizees to compare on.",
    lower_bound=1,
    of_the_run=False,
)
_DATA_DIR = _define(
    flags.DEFINE_string,
    "data_dir",
    None,
    "Folder of TensorFlow Datasets, for tasks that read it.",
    of_the_run=False,
)
_DOWNLOAD = _define(
    flags.DEFINE_boolean,
    "download",
    True,
    "Whether to download a data set that is not there.",
    of_the_run=False,
)
_OUTPUT_DIR = _define(
    flags.DEFINE_string,
    "output_dir",
    None,
    "Where everything is written. A new folder in l2l_runs by default.",
    of_the_run=False,
)
_RESUME = _define(
    flags.DEFINE_boolean,
    "resume",
    False,
    "Go on with the interrupted run in --output_dir, with its flags.",
    of_the_run=False,
)
_DESCRIPTION = _define(
    flags.DEFINE_string,
    "description",
    None,
    "A line that describes the rule, for its card.",
    of_the_run=False,
)
_CACHE = _define(
    flags.DEFINE_integer,
    "cache_mb",
    128,
    "Megabytes of activations to keep for the meta-gradient; what does not fit is computed again.",
    lower_bound=0,
    of_the_run=False,
)
_THREADS = _define(
    flags.DEFINE_integer,
    "threads",
    0,
    "Processor threads; all by default.",
    lower_bound=0,
    of_the_run=False,
)


def main(argv: list[str]) -> None:
    """Meta-trains a rule as the flags say.

    Args:
        argv: The command line without its flags.

    Raises:
        UserError: If something that the flags name is missing or cannot be used.

    Example:
        >>> FLAGS(["l2l-meta-train", "--task=quadratic", "--epochs=1"])  # doctest: +SKIP
        >>> main(["l2l-meta-train"])  # doctest: +SKIP
    """
    del argv
    output_dir = _resumed_run() if _RESUME.value else _new_run()
    _console.set_threads(_THREADS.value)
    keras.utils.set_random_seed(_SEED.value)
    task = _console.get_task(_TASK.value, _DATA_DIR.value, _DOWNLOAD.value, _OPTIONS.value)
    if isinstance(task, tasks.Mixture):
        # Two dozen programs are compiled, in half the time, and run as fast.
        os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true")
    rule, parent = _make_rule()
    meta_model, windows = _make_meta_model(rule, task)
    curriculum = _make_curriculum()
    # Once nothing is wrong with the flags: from here on, the folder holds a run.
    if not _RESUME.value:
        _console.write_text(output_dir / _SETTINGS, json.dumps(_settings(), indent=2))
    print(
        f"Meta-training {_describe(rule)} on {task.name} "
        f"({_size(task)}): {_EPOCHS.value} epochs of {_EPISODES.value} episodes of "
        f"{' to '.join(str(h) for h in sorted(set(meta_model.horizons)))} steps",
        flush=True,
    )
    _meta_train(meta_model, windows, curriculum, output_dir)
    if math.isinf(float(meta_model.best_value)):
        raise _console.UserError(
            f"No validation loss was finite, and {int(meta_model.skipped)} of "
            f"{_EPOCHS.value * windows} windows were skipped: try a lower --meta_learning_rate, "
            "or look at the task"
        )
    card = _card(rule, task, meta_model)
    if parent:
        card["trained_from"] = parent
    presets.save_preset(rule, output_dir / "preset", card)
    if isinstance(task, tasks.Mixture):
        print(f"\nHow good it is: l2l-evaluate --preset={output_dir / 'preset'} --task=testbed")
    elif _EVALUATE.value:
        comparison = evaluation.compare(
            task,
            {"learned": rule},
            steps=_HORIZON.value,
            seeds=range(_SEEDS.value),
            tuning_seeds=range(3),
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
        evaluation.write_report(comparison, output_dir, {"flags": _settings()})
        finals = {result.name: result.mean_final for result in comparison.results}
        card["results"] = evaluation.finite(
            {f"final loss on {task.name}, {_HORIZON.value} steps": finals}
        )
        presets.save_preset(rule, output_dir / "preset", card)
        print(f"\n{evaluation.table(comparison)}")
        print(f"The curves: {output_dir / 'curves.png'} and curves.csv")
    shutil.rmtree(output_dir / _BACKUP, ignore_errors=True)
    print(f"The rule:   {output_dir / 'preset'}")
    print(f"All files:  {output_dir}")


def _new_run() -> Path:
    """Makes the folder of a new run."""
    name = _OUTPUT_DIR.value
    if name is None:
        task = Path(_TASK.value.rpartition(":")[0] or _TASK.value).stem
        name = f"l2l_runs/{task}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    output_dir = Path(name).expanduser()
    if (output_dir / _SETTINGS).exists():
        raise _console.UserError(
            f"{str(output_dir)!r} holds a run already: go on with it (--resume), or name another "
            "--output_dir"
        )
    return _console.writable_directory(output_dir)


def _resumed_run() -> Path:
    """Finds the folder of an interrupted run, and takes its flags over."""
    if _OUTPUT_DIR.value is None:
        raise _console.UserError("--resume needs --output_dir", _console.USAGE)
    output_dir = Path(_OUTPUT_DIR.value).expanduser()
    try:
        settings = json.loads((output_dir / _SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise _console.UserError(f"No run to go on with in {str(output_dir)!r}: {error}") from error
    if (output_dir / "preset").exists() and not (output_dir / _BACKUP).exists():
        raise _console.UserError(f"The run in {str(output_dir)!r} is finished.")
    if settings.keys() != _settings().keys():
        raise _console.UserError(
            f"The run in {str(output_dir)!r} was begun by another version, with other flags."
        )
    for holder in _OF_THE_RUN:
        flag = FLAGS[holder.name]
        if flag.present and flag.value != settings[holder.name]:
            raise _console.UserError(
                f"A resumed run keeps its flags. Expected --{holder.name}="
                f"{settings[holder.name]}. Received: --{holder.name}={flag.value}",
                _console.USAGE,
            )
        flag.value = settings[holder.name]
    return _console.writable_directory(output_dir)


def _settings() -> dict[str, Any]:
    """Returns the flags that make a run what it is."""
    return {holder.name: holder.value for holder in _OF_THE_RUN}


def _make_rule() -> tuple[presets.Rules, dict[str, Any] | None]:
    """Makes a rule or groups of them, or loads what to go on from, with its card."""
    options = _console.parse_options("rule_option", _RULE_OPTIONS.value)
    if _RULE.value not in _console.RULES:
        if options or _GROUPS.value:
            raise _console.UserError(
                "The rule of a preset has no options or groups left to choose. "
                f"Received: --rule={_RULE.value} and --rule_option or --group",
                _console.USAGE,
            )
        return _console.load_preset(_RULE.value)
    make = functools.partial(_console.RULES[_RULE.value], **{"seed": _SEED.value, **options})
    try:
        if _GROUPS.value:
            return {group: make() for group in _GROUPS.value}, None
        return make(), None
    except (TypeError, ValueError) as error:
        raise _console.UserError(f"--rule_option: {error}", _console.USAGE) from error


def _size(task: tasks.Task | tasks.Mixture) -> str:
    """Returns how large optimizees are in words."""
    if isinstance(task, tasks.Mixture):
        return f"{len(task.members)} tasks of up to {task.size:,} coordinates"
    return f"{task.size:,} coordinates"


def _describe(rule: presets.Rules) -> str:
    """Returns the kinds and sizes of rules in words."""
    return " and ".join(
        f"{type(r).__name__} ({r.count_params():,} weights)"
        + ("" if isinstance(rule, rules.UpdateRule) else f" for {group!r}")
        for group, r in parameter_groups.rules(rule).items()
    )


def _make_meta_model(
    rule: presets.Rules, task: tasks.Task | tasks.Mixture
) -> tuple[meta.MetaModel, int]:
    """Makes the compiled `MetaModel`, and says how many windows an epoch has."""
    try:
        meta_model = meta.MetaModel(
            rule,
            task,
            horizon=(_HORIZON.value, _LONGEST.value) if _LONGEST.value else _HORIZON.value,
            unroll=_UNROLL.value,
            parallel=_PARALLEL.value,
            optimizees=_OPTIMIZEES.value,
            meta_loss=_META_LOSS.value,
            step_weights=_STEP_WEIGHTS.value,
            random_scale=_RANDOM_SCALE.value,
            random_scale_of=_RANDOM_SCALE_OF.value,
            window_clip=_WINDOW_CLIP.value,
            staggered=_STAGGERED.value,
            second_derivatives=_SECOND.value,
            clip_through_time=_CLIP_THROUGH_TIME.value,
            pes_pairs=_PES.value,
            pes_sigma=_PES_SIGMA.value,
            pes_reuse_noise=_PES_REUSE_NOISE.value,
            imitated_rate=_IMITATED_RATE.value,
            seed=_SEED.value,
            cache_bytes=_CACHE.value * 2**20,
        )
    except ValueError as error:
        raise _console.UserError(str(error), _console.USAGE) from error
    shortest, longest = meta_model.horizons
    mean = (longest - shortest) / math.log(longest / shortest) if longest > shortest else longest
    # Training steps in which so many episodes begin, and about as many end.
    windows = max(1, round(_EPISODES.value * mean / _UNROLL.value / _PARALLEL.value))
    schedule = keras.optimizers.schedules.CosineDecay(
        _LEARNING_RATE.value, windows * _EPOCHS.value, alpha=0.01
    )
    momentum = _EMA_MOMENTUM.value
    averaging = {} if momentum is None else {"use_ema": True, "ema_momentum": momentum}
    meta_model.compile(keras.optimizers.Adam(schedule, global_clipnorm=_CLIP.value, **averaging))
    return meta_model, windows


def _make_curriculum() -> list[keras.callbacks.Callback]:
    """Makes the callback that lengthens horizons, if there is to be one."""
    if not _CURRICULUM.value:
        return []
    try:
        horizons = [int(horizon) for horizon in _CURRICULUM.value]
        return [meta.Curriculum(horizons)]
    except ValueError as error:
        raise _console.UserError(f"--curriculum: {error}", _console.USAGE) from error


def _meta_train(
    meta_model: meta.MetaModel,
    windows: int,
    curriculum: list[keras.callbacks.Callback],
    output_dir: Path,
) -> None:
    """Meta-trains the rule in place, with a backup after every epoch."""
    # Its folder goes once everything is written: a run that is interrupted while it is compared
    # goes on from there.
    backup = meta.Backup(output_dir / _BACKUP)
    try:
        meta_model.fit(
            initial_epoch=backup.restore(meta_model),
            epochs=_EPOCHS.value,
            windows=windows,
            validation_episodes=_VALIDATION.value,
            verbose=0,
            callbacks=[
                meta.KeepBest(),
                *([keras.callbacks.SwapEMAWeights()] if meta_model.optimizer.use_ema else []),
                *curriculum,
                meta.Progress(lambda line: print(line, flush=True)),
                backup,
                keras.callbacks.CSVLogger(str(output_dir / "history.csv"), append=_RESUME.value),
                keras.callbacks.TensorBoard(str(output_dir / "tensorboard"), write_graph=False),
            ],
        )
    except KeyboardInterrupt:
        raise _console.UserError(
            f"interrupted; go on with: l2l-meta-train --resume --output_dir={output_dir}",
            _console.INTERRUPTED,
        ) from None


def _card(
    rule: presets.Rules, task: tasks.Task | tasks.Mixture, meta_model: meta.MetaModel
) -> dict[str, Any]:
    """Returns what there is to say about the trained rule."""
    own = _settings() | {"description": _DESCRIPTION.value}
    command = [
        argument
        for name, value in own.items()
        if value != FLAGS[name].default
        for argument in FLAGS[name].serialize().split("\n")
    ]
    description = f"{_describe(rule)} meta-trained on {task.name}"
    return {
        "name": task.name,
        "description": _DESCRIPTION.value or description,
        "command": shlex.join(["l2l-meta-train", *command]),
        "task": task.name,
        "horizon": _LONGEST.value or _HORIZON.value,
        "seed": _SEED.value,
        "validation_final_loss": float(meta_model.best_value),
        "windows_skipped": int(meta_model.skipped),
        "wall_seconds": round(float(meta_model.seconds)),
        "peak_memory_mb": round(_console.peak_memory() / 1e6),
        "processors": os.cpu_count(),
        "versions": evaluation.versions(),
        "licence": "Apache-2.0",
        "date": datetime.date.today().isoformat(),
    }


def console() -> None:
    """Entry point of `l2l-meta-train`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
