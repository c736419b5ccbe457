"""Runs of optimizers on one problem of the testbed; they are kept in a cache."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import statistics
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from l2l_keras.evaluation.baselines import BASELINES, Baseline, half_decades
from l2l_keras.evaluation.compare import Progress, final_losses, try_rates
from l2l_keras.evaluation.report import versions, write_files
from l2l_keras.evaluation.rollout import Rollout
from l2l_keras.tasks.base import Task

TUNED: dict[str, Baseline] = {
    **BASELINES,
    "AdamW": Baseline("AdamW", keras.optimizers.AdamW, half_decades(-4, 0)),
}
"""The baselines whose learning rates are tuned, by name."""

DEFAULT = "Adam, Keras' default"
"""The baseline that is not tuned: what one gets without asking for anything."""

_PACE_STEPS = 50
_PACE_TURNS = 5


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long runs are, and on which optimizees.

    Attributes:
        steps: Updates after which a run is judged, in increasing order.
        seeds: Seeds of the test optimizees and their minibatches.
        tuning_seeds: Seeds of the validation optimizees on which learning rates are tuned.

    Example:
        >>> Lengths(steps=(10, 100), seeds=(0, 1), tuning_seeds=(0,)).window(100)
        10
    """

    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]

    @staticmethod
    def window(steps: int) -> int:
        """Returns how many losses at the end of a run make its final loss: a tenth of them."""
        return max(1, steps // 10)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one optimizer did on one problem.

    Attributes:
        name: Name of the optimizer.
        rates: Its learning rate for runs of each length; None where it was not tuned.
        curves: For each length, losses f(θ_0) to f(θ_steps) of every seed, float32
            `[seeds, steps + 1]`.
        on_edge: For each length, whether a better learning rate may lie beyond those tried.
    """

    name: str
    rates: tuple[float, ...] | None
    curves: tuple[np.ndarray, ...] = dataclasses.field(repr=False)
    on_edge: tuple[bool, ...] = ()

    def final(self, k: int) -> np.ndarray:
        """Returns the final losses of every seed after runs of the k-th length, `[seeds]`."""
        curves = self.curves[k]
        return final_losses(curves, Lengths.window(curves.shape[1] - 1))


def untuned(name: str, rollout: Rollout, lengths: Lengths) -> Outcome:
    """Runs an optimizer as it is.

    Args:
        name: Name to show.
        rollout: Runs it on a problem's test optimizees, for the longest runs.
        lengths: How long, and on which optimizees.
    """
    curves = np.concatenate([rollout(seed) for seed in lengths.seeds])
    return Outcome(name, None, tuple(curves[:, : steps + 1] for steps in lengths.steps))


def tuned(
    task: Task, baseline: Baseline, lengths: Lengths, progress: Progress = lambda line: None
) -> Outcome:
    """Tunes a baseline for runs of each length, and runs it on test optimizees.

    A run's first steps are those of a shorter one: each learning rate is tried once, over the
    longest runs, and judged after each length. Where the best one lies on the edge of the grid,
    the grid goes on beyond it, as in `l2l_keras.evaluation.tune`.

    Args:
        task: The problem.
        baseline: The baseline.
        lengths: How long, and on which optimizees.
        progress: Called with a line of text after every learning rate.
    """
    rates = sorted(baseline.grid)
    rollout = Rollout(task, baseline.make(rates[0]), lengths.steps[-1], "validation")

    def losses_of(rate: float) -> list[float]:
        curves = np.concatenate([rollout(seed, rate) for seed in lengths.tuning_seeds])
        losses = [
            float(final_losses(curves[:, : steps + 1], Lengths.window(steps)).mean())
            for steps in lengths.steps
        ]
        shown = ", ".join(f"{loss:.4g}" for loss in losses)
        progress(f"{baseline.name}: learning rate {rate:.3g}: final loss {shown}")
        return losses

    rates, losses = try_rates(rates, losses_of)
    chosen = np.argmin(losses, axis=0).tolist()
    test = Rollout(task, baseline.make(rates[0]), lengths.steps[-1], "test")
    curves = tuple(
        np.concatenate([test(seed, rates[k], steps) for seed in lengths.seeds])
        for k, steps in zip(chosen, lengths.steps, strict=True)
    )
    edge = tuple(k in (0, len(rates) - 1) for k in chosen)
    return Outcome(baseline.name, tuple(rates[k] for k in chosen), curves, edge)


def paces(
    rollouts: Sequence[Rollout], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Measures the seconds of a step of several optimizers, side by side.

    Args:
        rollouts: They run the optimizers on the same problem.
        clock: Tells the time, in seconds. Defaults to the system's.

    Returns:
        Medians over several turns, in each of which every optimizer has a short run.
    """
    steps = min(_PACE_STEPS, *(rollout.steps for rollout in rollouts))
    taken: list[list[float]] = [[] for _ in rollouts]
    for turn in range(_PACE_TURNS):
        for rollout, seconds in zip(rollouts, taken, strict=True):
            start = clock()
            rollout(turn, steps=steps)
            seconds.append((clock() - start) / steps)
    return [statistics.median(seconds) for seconds in taken]


class Cache:
    """A folder in which what optimizers did is kept, each with the settings that it was made with.

    Losses are kept to three digits, which halves the files.

    Args:
        folder: The folder, which is made where needed.
        shipped: Another one, in which to look for what is not there.

    Example:
        >>> outcome = Outcome("Adam", (0.1,), (np.ones((2, 6), "float32"),), (False,))
        >>> cache = Cache("cache")
        >>> cache.get({"problem": "mine"}, make=lambda: outcome).rates
        (0.1,)
        >>> cache.get({"problem": "mine"}, make=lambda: None).rates
        (0.1,)
    """

    def __init__(
        self, folder: str | os.PathLike[str], shipped: str | os.PathLike[str] | None = None
    ) -> None:
        self._folder = Path(folder).expanduser()
        self._folders = [self._folder, *([] if shipped is None else [Path(shipped)])]

    def get(self, settings: dict[str, Any], make: Callable[[], Outcome]) -> Outcome:
        """Returns what was done with some settings, and does it where it was not.

        Args:
            settings: All that the outcome depends on, fit for JSON.
            make: Makes the outcome.
        """
        text = json.dumps(settings, sort_keys=True)
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"
        for folder in self._folders:
            kept = self._read(folder / name, text)
            if kept is not None:
                return kept
        outcome = make()
        outcome = dataclasses.replace(
            outcome, curves=tuple(_three_digits(curves) for curves in outcome.curves)
        )
        content = {
            "settings": settings,
            "name": outcome.name,
            "rates": outcome.rates,
            "on_edge": outcome.on_edge,
            "versions": versions(),
        }
        file = io.BytesIO()
        arrays: dict[str, Any] = {f"curves_{k}": curves for k, curves in enumerate(outcome.curves)}
        np.savez_compressed(file, content=np.array(json.dumps(content)), **arrays)
        write_files({name: file.getvalue()}, self._folder)
        return outcome

    @staticmethod
    def _read(path: Path, settings: str) -> Outcome | None:
        """Reads an outcome; None where there is none, or a damaged one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                content = json.loads(str(file["content"]))
                curves = tuple(file[f"curves_{k}"] for k in range(len(file.files) - 1))
                if json.dumps(content["settings"], sort_keys=True) != settings:
                    return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        rates = content["rates"] and tuple(content["rates"])
        return Outcome(content["name"], rates, curves, tuple(content["on_edge"]))


def _three_digits(curves: np.ndarray) -> np.ndarray:
    """Returns float32 numbers with ten bits after the first, rounded: what compresses well."""
    bits = np.ascontiguousarray(curves, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(2**12)) & np.uint32(2**32 - 2**13)).view(np.float32)
    return np.where(np.isfinite(curves), rounded, curves).astype(np.float32)
