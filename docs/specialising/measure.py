r"""Measures what ten minutes of meta-training gain: `python docs/specialising/measure.py FOLDER`.

On each test family, `general-fast` is specialised for ten minutes, and AdamW with a cosine decay is
tuned for ten: its learning rate and its weight decay, on as many validation networks as the time
allows. Then all of them train the same fresh networks, on the problem itself and on a related one
that neither has seen. Losses are those of examples held out.

The same command continues where an interrupted one has stopped, and ends with
docs/results/specialising.json, of which `python docs/tables.py` makes the page.

  FOLDER      where everything is kept
  MINUTES     (optional) how long to specialise and to tune: 10
  FAMILY ...  (optional) which families: all
"""

import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families

from l2l_keras import evaluation, presets, tasks
from l2l_keras.evaluation.results import loss_ratio
from l2l_keras.studies.outcome import share_to_reach
from l2l_keras.studies.specialise import specialise

PAGE = Path(__file__).resolve().parents[1] / "results" / "specialising.json"
START = "general-fast"
DECAYS = (0.0, 0.004, 0.03, 0.2, 1.0)
COMMON = evaluation.ALL_BASELINES["AdamW + cosine"]
SEEDS = range(10)


def measure(family: str, folder: Path, minutes: float) -> list[dict[str, Any]]:
    """Returns the rows of a family's own problem and of the related one."""
    own, related = {f.__name__: (f, other) for f, other in families.TEST.items()}[family]
    task, steps = own(), families.STEPS.get(family, 300)
    trained = specialise(task, steps, START, minutes, folder / "specialised", {}, print)
    rule, _ = presets.load_preset(trained.preset)
    rate, decay, runs = _tune(task, steps, minutes, folder / "tuning.json")
    rows = []
    for problem in (task, related()):
        comparison = _compare(problem, rule, steps, rate, decay)
        print(evaluation.table(comparison))
        best = comparison[COMMON.name]
        row = {"problem": problem.name, "weights": problem.size, "adamw": best.mean_final}
        for key, name in (("own", "specialised"), ("start", START), ("cosine", "with cosine")):
            result = comparison[name]
            ratio = loss_ratio(result.final, best.final)
            share = share_to_reach(result, best.mean_final)
            row |= {f"{key}_{end}": value for end, value in ratio._asdict().items()}
            row[f"{key}_share"] = share if math.isfinite(share) else None
        row |= {"rate": rate, "decay": decay, "runs": runs}
        rows.append({**row, "minutes": trained.seconds / 60.0, "steps": trained.steps})
    return rows


def _tune(task: tasks.Task, steps: int, minutes: float, record: Path) -> tuple[float, float, int]:
    """Returns AdamW's best learning rate and weight decay, and the runs that finding them took."""
    if not record.exists():
        # The second network costs no compilation.
        one, two = (_seconds(_tunings, task, steps, networks) for networks in (1, 2))
        tunings = _tunings(task, steps, max(1, round(60.0 * minutes / (two - one))))
        decay = min(DECAYS, key=lambda d: min(tunings[d].losses))
        runs = sum(tuning.runs for tuning in tunings.values())
        record.write_text(json.dumps([tunings[decay].best, decay, runs]), encoding="utf-8")
    return tuple(json.loads(record.read_text(encoding="utf-8")))


def _tunings(task: tasks.Task, steps: int, networks: int) -> dict[float, evaluation.Tuning]:
    """Tunes the learning rate for each weight decay."""
    baselines = {str(decay): _adamw(decay, COMMON.grid) for decay in DECAYS}
    options = {"seeds": [0], "tuning_seeds": range(networks), "baselines": baselines}
    comparison = evaluation.compare(task, {}, steps, progress=print, **options)
    return {decay: comparison[str(decay)].tuning for decay in DECAYS}


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns the wall time of a call."""
    start = time.monotonic()
    function(*arguments)
    return time.monotonic() - start


def _adamw(decay: float, rates: tuple[float, ...]) -> evaluation.Baseline:
    make = functools.partial(COMMON.make, weight_decay=decay)
    return dataclasses.replace(COMMON, make=make, grid=rates)


def _compare(
    task: tasks.Task, rule: presets.Rules, steps: int, rate: float, decay: float
) -> evaluation.Comparison:
    start, _ = presets.load_preset(START)
    return evaluation.compare(
        task,
        {"specialised": rule, START: start, "with cosine": start},
        steps,
        SEEDS,
        baselines={COMMON.name: _adamw(decay, (rate,))},
        schedules={"specialised": "cosine", "with cosine": "cosine"},
    )


def main(folder: str, minutes: str = "10", *names: str) -> None:
    """Measures each family that has no record yet, and writes the page of those that have one."""
    for name in names or [family.__name__ for family in families.TEST]:
        record = Path(folder, name, "rows.json")
        record.parent.mkdir(parents=True, exist_ok=True)
        if not record.exists():
            rows = measure(name, record.parent, float(minutes))
            record.write_text(json.dumps(rows), encoding="utf-8")
    found = [Path(folder, family.__name__, "rows.json") for family in families.TEST]
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.exists()]
    page = json.loads(PAGE.read_text(encoding="utf-8"))
    losses, costs = page["tables"]
    losses["rows"] = [row for own in rows for row in own]
    costs["rows"] = [own for own, _ in rows]
    PAGE.write_text(json.dumps(page, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
