"""Meta-training of a rule further on one task, within a time limit."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Mapping
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
_PAIRS, _PARALLEL, _RATE = 4, 2, 1e-2


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
    stored = _read(folder / _SETTINGS)
    epochs = 0 if stored is None else stored.pop("epochs")
    if stored not in (None, settings):
        raise ValueError(
            f"{str(folder)!r} holds a rule that was specialised with other settings: remove it, or "
            f"use another folder. Expected {settings}. Received: {stored}"
        )
    preset = folder / "preset"
    if (cost := _read(folder / _COST)) is not None:
        return Specialised(preset, **cost)
    rule, card = presets.load_preset(start)
    meta_model = _make_meta_model(rule, task, steps)
    if not epochs:
        progress("measuring how long an epoch takes")
        epochs = max(1, int(60.0 * minutes / _seconds_of_epoch(meta_model)))
        write_files({_SETTINGS: {**settings, "epochs": epochs}}, folder)
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
        windows=meta_model.windows_of(_EPISODES),
        validation_episodes=_EPISODES,
        verbose=0,
        callbacks=[
            keras.callbacks.LearningRateScheduler(functools.partial(_rate, epochs=epochs)),
            keep_best,
            keras.callbacks.SwapEMAWeights(),
            timer,
            backup,
            keras.callbacks.CSVLogger(str(folder / "history.csv"), append=bool(done)),
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
    cost = {"seconds": timer.seconds, "steps": epochs * _steps_of_epoch(meta_model)}
    write_files({_COST: cost}, folder)
    return Specialised(preset, **cost)


def _make_meta_model(rule: presets.Rules, task: Task, steps: int) -> meta.MetaModel:
    """Returns a compiled `MetaModel`."""
    meta_model = meta.MetaModel(
        rule,
        task,
        horizon=steps,
        estimator=meta.PersistentEvolution(_PAIRS, reuse_noise=True),
        windows=meta.Windows(
            unroll=next(k for k in range(min(20, steps), 0, -1) if not steps % k),
            meta_loss="log_relative",
            step_weights="linear",
            clip_norm=50.0,
            staggered=True,
        ),
        parallel=_PARALLEL,
        meta_loss_on="validation",
    )
    optimizer = keras.optimizers.Adam(_RATE, global_clipnorm=1.0, use_ema=True, ema_momentum=0.98)
    meta_model.compile(optimizer)
    return meta_model


def _rate(epoch: int, _: float, epochs: int) -> float:
    """Returns the learning rate of an epoch, which falls as a cosine."""
    return _RATE * max(0.01, 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)))


def _seconds_of_epoch(meta_model: meta.MetaModel) -> float:
    """Returns how long an epoch takes, and leaves the model as it was."""
    variables = [*meta_model.variables, *meta_model.optimizer.variables]
    values = [keras.ops.convert_to_numpy(v) for v in variables]
    windows = meta_model.windows_of(_EPISODES)
    arguments = {"windows": windows, "validation_episodes": _EPISODES, "verbose": 0}
    meta_model.fit(epochs=1, **arguments)  # Compiles.
    begin = time.monotonic()
    meta_model.fit(epochs=1, **arguments)
    seconds = time.monotonic() - begin
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return seconds


def _steps_of_epoch(meta_model: meta.MetaModel) -> int:
    """Returns the steps of optimizees in an epoch: each of a pair takes its own."""
    windows = meta_model.windows_of(_EPISODES) * meta_model.parallel
    training = 2 * _PAIRS * windows * meta_model.windows.unroll
    return training + _EPISODES * meta_model.horizons[1]


def _read(path: Path) -> dict[str, Any] | None:
    """Reads a JSON file; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
