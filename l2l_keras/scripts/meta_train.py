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

Starting from a rule that ships with the package, or from one of your own, in ten minutes, for
training runs of 300 steps:

  l2l-meta-train --task=my_task.py:make_task --rule=general-fast --horizon=300 --minutes=10

Resume an interrupted run, to the same weights, with:

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import l2l_keras
from l2l_keras.arguments import did_you_mean
from l2l_keras.scripts import _console
from l2l_keras.scripts._meta_train_flags import FLAGS, HOW_FLAGS, RUN_FLAGS

if TYPE_CHECKING:
    from l2l_keras import meta, presets, tasks

_SETTINGS = "settings.json"
_BACKUP = "backup"
_MINUTES = 10.0
"""How long a preset is specialised."""
_print = functools.partial(print, flush=True)


def main(argv: list[str]) -> None:
    """Meta-trains a rule as the flags say; a `UserError` says which flag is wrong."""
    del argv
    import keras
    import tensorflow as tf

    from l2l_keras import presets
    from l2l_keras.evaluation.files import write_files
    from l2l_keras.tasks.mixture import as_mixture

    if FLAGS.minutes and (FLAGS["epochs"].present or FLAGS.resume):
        other = "--resume" if FLAGS.resume else "--epochs"
        raise _console.UsageError(f"--minutes sets --epochs. Received: --minutes and {other}")
    output_dir = _resumed_run() if FLAGS.resume else _new_run()
    if FLAGS.threads:
        tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
        tf.config.threading.set_inter_op_parallelism_threads(FLAGS.threads)
    keras.utils.set_random_seed(FLAGS.seed)
    task = _console.get_task(FLAGS.task, FLAGS.data_dir, FLAGS.download, FLAGS.task_option)
    members = list(as_mixture(task).members.values())
    if len(members) > 1:
        # Compiles dozens of programs in half the time; they run as fast.
        os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true")
    rule, parent = _make_rule()
    if parent and not FLAGS.resume:
        _specialise(members)
    try:
        meta_model = _make_meta_model(rule, task)
        callbacks = _make_callbacks()
    except ValueError as error:
        raise _console.UsageError(str(error)) from error
    if not FLAGS.resume:
        if FLAGS.minutes:
            _fit_into_minutes(meta_model, callbacks)
        # From here on, the folder holds a run.
        write_files({_SETTINGS: _settings()}, output_dir)
    _compile(meta_model, callbacks)
    size = "" if len(members) == 1 else f"{len(members)} tasks of up to "
    horizons = " to ".join(str(h) for h in sorted(set(meta_model.horizons)))
    print(
        f"Meta-training {_describe(rule)} on {task.name} ({size}{task.size:,} parameters): "
        f"{FLAGS.epochs} epochs of {FLAGS.episodes} episodes of {horizons} steps",
        flush=True,
    )
    _meta_train(meta_model, callbacks, output_dir, started_from_preset=parent is not None)
    card = _card(meta_model, callbacks)
    if parent:
        card["trained_from"] = parent
    presets.save_preset(rule, output_dir / "preset", card)
    if len(members) > 1:
        print(f"\nTo measure it: l2l-evaluate --preset={output_dir / 'preset'} --task=testbed")
    elif FLAGS.evaluate:
        card["results"] = _compare(rule, members[0], output_dir)
        presets.save_preset(rule, output_dir / "preset", card)
    shutil.rmtree(output_dir / _BACKUP, ignore_errors=True)
    print(f"The rule:   {output_dir / 'preset'}")
    print(f"All files:  {output_dir}")


def _new_run() -> Path:
    """Makes the folder of a new run."""
    name = FLAGS.output_dir
    if name is None:
        task = Path(FLAGS.task.rpartition(":")[0] or FLAGS.task).stem
        name = f"l2l_runs/{task}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    output_dir = Path(name).expanduser()
    if (output_dir / _SETTINGS).exists():
        raise _console.UserError(
            f"{str(output_dir)!r} holds a run already: --resume it, or name another --output_dir"
        )
    return _console.writable_directory(output_dir)


def _resumed_run() -> Path:
    """Finds the folder of an interrupted run, and takes over its flags."""
    if FLAGS.output_dir is None:
        raise _console.UsageError("--resume needs --output_dir")
    output_dir = Path(FLAGS.output_dir).expanduser()
    try:
        settings = json.loads((output_dir / _SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise _console.UserError(f"No run to resume in {str(output_dir)!r}: {error}") from error
    if (output_dir / "preset").exists() and not (output_dir / _BACKUP).exists():
        raise _console.UserError(f"The run in {str(output_dir)!r} is finished.")
    if settings.keys() != set(RUN_FLAGS):
        raise _console.UserError(
            f"The run in {str(output_dir)!r} was begun by another version, with other flags."
        )
    for name, value in settings.items():
        flag = FLAGS[name]
        if flag.present and flag.value != value:
            raise _console.UsageError(
                f"A resumed run keeps its flags. Expected --{name}={value}. "
                f"Received: --{name}={flag.value}"
            )
        flag.value = value
    return _console.writable_directory(output_dir)


def _settings() -> dict[str, Any]:
    """Returns the values of the flags that a resumed run keeps."""
    return {name: FLAGS[name].value for name in RUN_FLAGS}


def _make_rule() -> tuple[presets.Rules, dict[str, Any] | None]:
    """Makes a rule or groups of them, or loads a preset to train further, with its card."""
    options = _console.parse_options("rule_option", FLAGS.rule_option)
    if FLAGS.rule not in _console.RULES:
        shipped = l2l_keras.list_presets()
        on_hub = FLAGS.rule.startswith(l2l_keras.presets.hub.PREFIX)
        if FLAGS.rule not in shipped and not on_hub and not os.path.isdir(FLAGS.rule):
            raise _console.UsageError(
                f"Expected --rule to be one of {', '.join(_console.RULES)}, or to be trained "
                f"further: {', '.join(shipped)}, or the folder or hf://user/name of a preset. "
                f"Received: {FLAGS.rule!r}{did_you_mean(FLAGS.rule, [*_console.RULES, *shipped])}"
            )
        if options or FLAGS.group:
            raise _console.UsageError(
                "A preset has no options or groups left to choose. "
                f"Received: --rule={FLAGS.rule} and --rule_option or --group"
            )
        return _console.load_preset(FLAGS.rule)
    rule_class = getattr(l2l_keras.rules, _console.RULES[FLAGS.rule])
    make = functools.partial(rule_class, **{"seed": FLAGS.seed, **options})
    try:
        if FLAGS.group:
            return {group: make() for group in FLAGS.group}, None
        return make(), None
    except (TypeError, ValueError) as error:
        raise _console.UsageError(f"--rule_option: {error}") from error


def _specialise(members: list[tasks.Task]) -> None:
    """Sets flags as they suit meta-training that starts from a preset, if none of them is given."""
    from l2l_keras.studies import Recipe

    if len(members) > 1 or any(FLAGS[name].present for name in HOW_FLAGS):
        return
    for name, value in Recipe.of(members[0], FLAGS.horizon)._asdict().items():
        if not FLAGS[name].present:
            FLAGS[name].value = value
    if not FLAGS["epochs"].present and FLAGS.minutes is None:
        FLAGS["minutes"].value = _MINUTES


def _describe(rule: presets.Rules) -> str:
    """Returns the types and sizes of rules in words."""
    from l2l_keras import parameter_groups, rules

    return " and ".join(
        f"{type(r).__name__} ({r.count_params():,} weights)"
        + ("" if isinstance(rule, rules.UpdateRule) else f" for {group!r}")
        for group, r in parameter_groups.rules(rule).items()
    )


def _make_estimator() -> meta.Estimator:
    """Makes the estimator of meta-gradients."""
    from l2l_keras import meta

    names = ("second_derivatives", "pes_pairs", "imitated_rate")
    chosen = [f"--{name}" for name in names if FLAGS[name].value]
    if len(chosen) > 1:
        raise ValueError(f"Expected one of these flags at most. Received: {' and '.join(chosen)}")
    if FLAGS.pes_reuse_noise and not FLAGS.pes_pairs:
        raise ValueError("--pes_reuse_noise needs --pes_pairs.")
    cache_bytes = FLAGS.cache_mb * 2**20
    if FLAGS.pes_pairs:
        return meta.PersistentEvolution(FLAGS.pes_pairs, FLAGS.pes_sigma, FLAGS.pes_reuse_noise)
    if FLAGS.imitated_rate:
        return meta.Imitation(FLAGS.imitated_rate, cache_bytes)
    return meta.BackPropagation(FLAGS.second_derivatives, FLAGS.clip_through_time, cache_bytes)


def _make_meta_model(rule: presets.Rules, task: tasks.Task | tasks.Mixture) -> meta.MetaModel:
    """Makes the `MetaModel`, which is still to be compiled."""
    from l2l_keras import meta

    return meta.MetaModel(
        rule,
        task,
        horizon=(FLAGS.horizon, FLAGS.longest_horizon) if FLAGS.longest_horizon else FLAGS.horizon,
        estimator=_make_estimator(),
        windows=meta.Windows(
            unroll=FLAGS.unroll,
            meta_loss=FLAGS.meta_loss,
            step_weights=FLAGS.step_weights,
            random_scale=FLAGS.random_scale,
            random_scale_of=FLAGS.random_scale_of,
            clip_norm=FLAGS.window_clip,
            staggered=FLAGS.staggered,
        ),
        parallel=FLAGS.parallel,
        optimizees=FLAGS.optimizees,
        meta_loss_on=FLAGS.meta_loss_on,
        schedule=FLAGS.schedule,
        seed=FLAGS.seed,
    )


def _compile(meta_model: meta.MetaModel, callbacks: dict[str, Any]) -> None:
    """Compiles the model with a meta-optimizer for all epochs."""
    from l2l_keras import meta

    updates = meta_model.windows_of(FLAGS.episodes) * FLAGS.epochs
    factor = callbacks["backtrack"].factor if FLAGS.backtrack else None
    rate, clip, momentum = FLAGS.meta_learning_rate, FLAGS.meta_clip, FLAGS.ema_momentum
    meta_model.compile(meta.adam(rate, updates, clip, momentum, factor))


def _fit_into_minutes(meta_model: meta.MetaModel, callbacks: dict[str, Any]) -> None:
    """Sets the number of epochs that there is time for."""
    from l2l_keras import meta

    _print("Measuring how long an epoch takes ...")
    _compile(meta_model, callbacks)
    windows = meta_model.windows_of(FLAGS.episodes)
    epochs = meta.epochs_within(FLAGS.minutes, meta_model, windows, FLAGS.validation_episodes)
    FLAGS["epochs"].value = epochs


def _make_callbacks() -> dict[str, Any]:
    """Makes the callbacks whose state is backed up, by name."""
    from l2l_keras import meta

    on_training = FLAGS.meta_loss_on == "training"
    monitor = "val_final_loss" if on_training else "val_held_out_loss"
    callbacks: dict[str, Any] = {"keep_best": meta.KeepBest(monitor)}
    if FLAGS.curriculum:
        try:
            horizons = [int(horizon) for horizon in FLAGS.curriculum]
            callbacks["curriculum"] = meta.Curriculum(horizons, callbacks["keep_best"])
        except ValueError as error:
            raise ValueError(f"--curriculum: {error}") from error
    if FLAGS.backtrack:
        callbacks["backtrack"] = meta.Backtrack(callbacks["keep_best"])
    callbacks["progress"] = meta.Progress(_print)
    return callbacks


def _meta_train(
    meta_model: meta.MetaModel,
    callbacks: dict[str, Any],
    output_dir: Path,
    started_from_preset: bool,
) -> None:
    """Meta-trains the rule in place, with a backup after every epoch."""
    import keras
    import tensorflow as tf

    from l2l_keras import meta

    keep_best, *others = callbacks.values()
    windows = meta_model.windows_of(FLAGS.episodes)
    # `main` deletes the backup once everything is written: a run that is interrupted during its
    # comparison resumes there.
    backup = meta.Backup(output_dir / _BACKUP, **callbacks)
    done = backup.restore(meta_model)
    try:
        if started_from_preset and not done:
            # Meta-training may make a rule worse: the preset counts, too.
            meta_model.evaluate(
                tf.data.Dataset.range(FLAGS.validation_episodes), verbose=0, callbacks=[keep_best]
            )
        meta_model.fit(
            initial_epoch=done,
            epochs=FLAGS.epochs,
            windows=windows,
            validation_episodes=FLAGS.validation_episodes,
            verbose=0,
            callbacks=[
                keep_best,
                *([keras.callbacks.SwapEMAWeights()] if meta_model.optimizer.use_ema else []),
                *others,
                backup,
                keras.callbacks.CSVLogger(str(output_dir / "history.csv"), append=FLAGS.resume),
                keras.callbacks.TensorBoard(str(output_dir / "tensorboard"), write_graph=False),
            ],
        )
    except KeyboardInterrupt:
        raise _console.Interrupted(
            f"interrupted; resume with: l2l-meta-train --resume --output_dir={output_dir}"
        ) from None
    if math.isinf(keep_best.best_value):
        raise _console.UserError(
            f"No validation loss was finite, and {int(meta_model.skipped)} of "
            f"{FLAGS.epochs * windows} windows were skipped: try a lower --meta_learning_rate, or "
            "look at the task"
        )


def _compare(rule: presets.Rules, task: tasks.Task, output_dir: Path) -> dict[str, Any]:
    """Compares the rule with tuned baselines; returns the results for its card."""
    from l2l_keras import evaluation
    from l2l_keras.evaluation.files import finite

    comparison = evaluation.compare(
        task,
        {"learned": rule},
        steps=FLAGS.horizon,
        seeds=range(FLAGS.seeds),
        tuning_seeds=range(3),
        schedules={"learned": FLAGS.schedule},
        progress=_print,
    )
    evaluation.write_report(comparison, output_dir, {"flags": _settings()})
    print(f"\n{evaluation.table(comparison)}")
    print(f"The curves: {output_dir / 'curves.png'} and curves.csv")
    finals = {result.name: result.mean_final for result in comparison.results}
    return finite({f"final loss on {task.name}, {FLAGS.horizon} steps": finals})


def _card(meta_model: meta.MetaModel, callbacks: dict[str, Any]) -> dict[str, Any]:
    """Returns the card of the trained rule."""
    from l2l_keras.evaluation.files import versions

    task = meta_model.task.name
    command = [
        argument
        for name in (*RUN_FLAGS, "description")
        if FLAGS[name].value != FLAGS[name].default
        for argument in FLAGS[name].serialize().split("\n")
    ]
    return {
        "name": task,
        "description": FLAGS.description or f"{_describe(meta_model.rule)} meta-trained on {task}",
        "command": shlex.join(["l2l-meta-train", *command]),
        "task": task,
        "horizon": FLAGS.longest_horizon or FLAGS.horizon,
        "schedule": FLAGS.schedule,
        "seed": FLAGS.seed,
        "validation_final_loss": callbacks["keep_best"].best_value,
        "windows_skipped": int(meta_model.skipped),
        "wall_seconds": round(callbacks["progress"].seconds),
        "peak_memory_mb": round(_console.peak_memory() / 1e6),
        "processors": os.cpu_count(),
        "versions": versions(),
        "licence": "Apache-2.0",
        "date": datetime.date.today().isoformat(),
    }


def console() -> None:
    """Entry point of `l2l-meta-train`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
