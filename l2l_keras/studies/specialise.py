"""Meta-training of a rule further on one task, within a time limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from l2l_keras import meta, presets
from l2l_keras.evaluation.files import versions, write_files
from l2l_keras.progress import Progress
from l2l_keras.studies.recipe import Recipe
from l2l_keras.tasks import Task

_SETTINGS, _COST, _BACKUP = "settings.json", "cost.json", "backup"


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
    recipe = Recipe.of(task, steps)
    meta_model = recipe.meta_model(rule, task, steps)
    windows = meta_model.windows_of(recipe.episodes)
    own = {"windows": windows, "validation_episodes": recipe.validation_episodes}
    monitor = "val_held_out_loss" if task.holds_out else "val_final_loss"
    keep_best, timer = meta.KeepBest(monitor), meta.Progress(progress)
    backtrack = meta.Backtrack(keep_best)
    if not epochs:
        progress("measuring how long an epoch takes")
        meta_model.compile(recipe.meta_optimizer(windows, backtrack))
        epochs = meta.epochs_within(minutes, meta_model, **own)
        write_files({_SETTINGS: {**settings, "epochs": epochs}}, folder)
    meta_model.compile(recipe.meta_optimizer(windows * epochs, backtrack))
    kept = {"keep_best": keep_best, "backtrack": backtrack, "progress": timer}
    backup = meta.Backup(folder / _BACKUP, **kept)
    done = backup.restore(meta_model)
    if not done:
        # Meta-training may make a rule worse: what it starts from counts, too.
        validation = tf.data.Dataset.range(recipe.validation_episodes)
        meta_model.evaluate(validation, verbose=0, callbacks=[keep_best])
    meta_model.fit(
        initial_epoch=done,
        epochs=epochs,
        verbose=0,
        callbacks=[
            keep_best,
            keras.callbacks.SwapEMAWeights(),
            backtrack,
            timer,
            backup,
            keras.callbacks.CSVLogger(str(folder / "history.csv"), append=bool(done)),
        ],
        **own,
    )
    presets.save_preset(
        rule,
        preset,
        {
            "name": f"{start}, specialised on {task.name}",
            "description": f"{start} meta-trained further on {task.name}, {steps} steps",
            "task": task.name,
            "horizon": steps,
            "schedule": recipe.schedule,
            monitor.replace("val_", "validation_"): keep_best.best_value,
            "wall_seconds": round(timer.seconds),
            "trained_from": card,
            "versions": versions(),
        },
    )
    cost = {"seconds": timer.seconds, "steps": epochs * _steps_of_epoch(meta_model, recipe)}
    write_files({_COST: cost}, folder)
    return Specialised(preset, **cost)


def _steps_of_epoch(meta_model: meta.MetaModel, recipe: Recipe) -> int:
    """Returns the steps of optimizees in an epoch: each of a pair takes its own."""
    windows = meta_model.windows_of(recipe.episodes) * meta_model.parallel
    training = 2 * recipe.pes_pairs * windows * recipe.unroll
    return training + recipe.validation_episodes * meta_model.horizons[1]


def _read(path: Path) -> dict[str, Any] | None:
    """Reads a JSON file; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
