"""Meta-training of a rule further on one task, within a time limit."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from l2l_keras import meta, presets
from l2l_keras.evaluation.files import versions, write_files
from l2l_keras.progress import Progress
from l2l_keras.tasks import Task

_SETTINGS, _COST, _BACKUP = "settings.json", "cost.json", "backup"
_EPISODES = 8
"""Episodes of an epoch, and of its validation."""


class Specialised(NamedTuple):
    """A specialised rule.

    Attributes:
        preset: Folder of its preset.
        seconds: Wall time of meta-training.
        steps: Steps of optimizees that it took, those of validation included.
    """

    preset: Path
    seconds: float
    steps: int


def specialise(
    task: Task,
    steps: int,
    start: str,
    minutes: float,
    folder: Path,
    record: Mapping[str, Any],
    progress: Progress,
) -> Specialised:
    """Meta-trains a preset further on a task, or continues where an interrupted run has stopped.

    Args:
        task: A task that holds examples out: the rule learns to lower the loss on these.
        steps: Updates of the training runs that the rule is for.
        start: The preset to start from, by name or folder.
        minutes: About how long to meta-train.
        folder: Where everything is written.
        record: What else the result depends on, fit for JSON.
        progress: Takes a line after every epoch.

    Raises:
        ValueError: If the folder holds a run with other settings.
    """
    settings = {"record": dict(record), "steps": steps, "start": start, "minutes": minutes}
    preset = folder / "preset"
    make = functools.partial(_make_meta_model, task, steps)
    stored = _read(folder / _SETTINGS)
    if stored is None:
        progress("measuring how long an epoch takes")
        epochs = _epochs_within(60.0 * minutes, make, start)
        write_files({_SETTINGS: {**settings, "epochs": epochs}}, folder)
    else:
        epochs = stored.pop("epochs")
        if stored != settings:
            raise ValueError(
                f"{str(folder)!r} holds a rule that was specialised with other settings: remove "
                f"it, or use another folder. Expected {settings}. Received: {stored}"
            )
    if (cost := _read(folder / _COST)) is not None:
        return Specialised(preset, **cost)
    rule, card = presets.load_preset(start)
    meta_model, windows = make(rule, epochs)
    keep_best, timer = meta.KeepBest("val_held_out_loss"), meta.Progress(progress)
    backup = meta.Backup(folder / _BACKUP, keep_best=keep_best, progress=timer)
    done = backup.restore(meta_model)
    if not done:
        # Meta-training may make a rule worse: what it starts from counts, too.
        validation = tf.data.Dataset.range(_EPISODES)
        meta_model.evaluate(validation, verbose=0, callbacks=[keep_best])
    meta_model.fit(
        initial_epoch=done,
        epochs=epochs,
        windows=windows,
        validation_episodes=_EPISODES,
        verbose=0,
        callbacks=[
            keep_best,
            keras.callbacks.SwapEMAWeights(),
            timer,
            backup,
            keras.callbacks.CSVLogger(str(folder / "history.csv"), append=stored is not None),
        ],
    )
    presets.save_preset(
        rule,
        preset,
        {
            "name": f"{start}, specialised on {task.name}",
            "description": f"{start} meta-trained further on {task.name}, {steps} steps",
            "task": task.name,
            "horizon": steps,
            "validation_held_out_loss": keep_best.best_value,
            "wall_seconds": round(timer.seconds),
            "trained_from": card,
            "versions": versions(),
        },
    )
    cost = {"seconds": timer.seconds, "steps": epochs * _steps_of_epoch(meta_model, windows)}
    write_files({_COST: cost}, folder)
    return Specialised(preset, **cost)


def _make_meta_model(
    task: Task, steps: int, rule: presets.Rules, epochs: int
) -> tuple[meta.MetaModel, int]:
    """Returns a compiled `MetaModel`, and the windows of an epoch."""
    unroll = next(k for k in range(min(20, steps), 0, -1) if not steps % k)
    meta_model = meta.MetaModel(
        rule,
        task,
        horizon=steps,
        estimator=meta.PersistentEvolution(pairs=1, reuse_noise=True),
        windows=meta.Windows(
            unroll=unroll,
            meta_loss="log_relative",
            step_weights="linear",
            clip_norm=50.0,
            staggered=True,
        ),
        parallel=8,
        meta_loss_on="validation",
    )
    windows = meta_model.windows_of(_EPISODES)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, windows * epochs, alpha=0.01)
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0, use_ema=True, ema_momentum=0.98)
    meta_model.compile(optimizer)
    return meta_model, windows


def _epochs_within(seconds: float, make: Callable[..., Any], start: str) -> int:
    """Returns how many epochs take about so long, by the time that a second one takes."""
    rule, _ = presets.load_preset(start)
    meta_model, windows = make(rule, 2)
    arguments = {"windows": windows, "validation_episodes": _EPISODES, "verbose": 0}
    meta_model.fit(epochs=1, **arguments)  # Compiles.
    begin = time.monotonic()
    meta_model.fit(initial_epoch=1, epochs=2, **arguments)
    return max(1, int(seconds / (time.monotonic() - begin)))


def _steps_of_epoch(meta_model: meta.MetaModel, windows: int) -> int:
    """Returns the steps of optimizees in an epoch: each of a pair takes its own."""
    training = 2 * windows * meta_model.parallel * meta_model.windows.unroll
    return training + _EPISODES * meta_model.horizons[1]


def _read(path: Path) -> dict[str, Any] | None:
    """Reads a JSON file; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
