r"""Measures how fast this machine meta-trains, or what using a learned optimizer costs.

  l2l-benchmark                        # meta-training, all processor cores
  l2l-benchmark --threads=1 --json=speed.json
  l2l-benchmark --what=apply           # steps of a LearnedOptimizer
  l2l-benchmark --what=apply --backend=jax --rule=rnnprop --coordinates=100_000 --variables=10
  l2l-benchmark --against=../other     # this l2l_keras and that in another folder, alternately

Each case is measured in a process of its own. "Of sgemm" is the share of the speed of a plain
matrix product, measured in turn with it, that the matrix products of the rule reach: 2 operations
per weight of the rule and element forward, and in meta-training 4 backward; 0 if it has none.

--what=meta_train, the default: inner steps per second of meta-training the paper's 2x20 LSTM
(windows of 20 steps, Adam on the rule's weights included), the time until the first window is done,
and the process's peak memory. `quadratic` is 128 functions of 10 dimensions at once, `mnist_mlp` a
784-20-10 sigmoid network with minibatches of 128 random images.

--what=apply: nanoseconds per weight of the model of a step with given gradients, as the backend's
training takes it (compiled; eager on PyTorch), and Adam's on equal variables. State is what the
optimizer keeps per weight (Adam: 8 bytes). Scratch is the process's largest resident set in later
steps, less that before the first, and "with compilers" that of the first three. The first call is
tracing, compiling and one step. The defaults take about half an hour, and 7 GB of memory.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

import l2l_keras
from l2l_keras.scripts import _console

Result = dict[str, Any]

_BACKENDS = ("tensorflow", "jax", "torch")
_PROBLEMS = ("quadratic", "mnist_mlp")
_WORKER = Path(__file__).with_name("_benchmark_worker.py")

FLAGS = flags.FlagValues()
define = _console.define_in(FLAGS)
training = _console.define_in(FLAGS, "With --what=meta_train")
applying = _console.define_in(FLAGS, "With --what=apply")
define.enum("what", "meta_train", ["meta_train", "apply"], "What to measure.")
training.multi_enum("problem", _PROBLEMS, _PROBLEMS, "What to meta-train on. Repeatable.")
applying.multi_enum("backend", None, _BACKENDS, "Keras backend; all that are installed.")
applying.multi_enum("rule", [], sorted(_console.RULES), "Rule to apply: coordinatewise_lstm.")
applying.multi_string("preset", [], "Preset to apply. Repeatable.")
applying.multi_count("coordinates", [10_000, 1_000_000, 10_000_000], "Weights of the model.")
applying.multi_count("variables", [1, 40, 400], "Variables that these are divided into.")
applying.integer("columns", 0, "Columns of the variables; 0 for vectors.", lower_bound=0)
applying.enum("state_dtype", "float32", ["float32", "bfloat16"], "Type of a rule's state.")
define.integer("threads", 0, "Processor threads; 0: all.", lower_bound=0)
define.count("rounds", 7, "Rounds of measurements; medians are shown.")
define.float("seconds", 1.0, "Least of a measurement.", lower_bound=0.0)
define.string("against", None, "Folder of another l2l_keras.")
define.string("json", None, "File for the results, as JSON.")


def main(argv: list[str]) -> None:
    """Measures what the flags say and prints a table."""
    del argv
    import keras

    from l2l_keras.evaluation.files import versions, write_files
    from l2l_keras.evaluation.report import lay_out

    cases = _apply_cases() if FLAGS.what == "apply" else [{"problem": p} for p in FLAGS.problem]
    if FLAGS.json:
        _console.writable_directory(Path(FLAGS.json).parent)
    results = []
    for number, case in enumerate(cases, start=1):
        settings = " ".join(f"--{name}={value}" for name, value in case.items())
        print(f"[{number}/{len(cases)}] {settings}", file=sys.stderr, flush=True)
        results += _measure_in_turns(case)
    print(
        f"{platform.processor() or platform.machine()}, threads: {FLAGS.threads or 'all'}, "
        f"Keras {keras.__version__}, median of {FLAGS.rounds}\n"
    )
    rows = [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in result.values()]
        for result in results
    ]
    print(lay_out(list(results[0]), rows, markdown=False))
    if FLAGS.json:
        content = {"what": FLAGS.what, "threads": FLAGS.threads, "results": results}
        path = Path(FLAGS.json)
        write_files({path.name: {**content, "versions": versions()}}, path.parent)


def _apply_cases() -> list[Result]:
    """Returns the settings of all combinations, by the names of flags."""
    rows = [size / max(FLAGS.columns, 1) for size in FLAGS.coordinates]
    if any(not count.is_integer() or count < max(FLAGS.variables) for count in rows):
        raise _console.UsageError(
            "Expected --coordinates to be a multiple of --columns, with a row for each of "
            f"--variables. Received: --coordinates={FLAGS.coordinates}, "
            f"--columns={FLAGS.columns}, --variables={FLAGS.variables}"
        )
    settings = {
        "backend": FLAGS.backend or [name for name in _BACKENDS if importlib.util.find_spec(name)],
        "rule": [*FLAGS.preset, *FLAGS.rule] or ["coordinatewise_lstm"],
        "coordinates": FLAGS.coordinates,
        "variables": FLAGS.variables,
        "columns": [FLAGS.columns],
        "state_dtype": [FLAGS.state_dtype],
    }
    cases = itertools.product(*settings.values())
    return [dict(zip(settings, case, strict=True)) for case in cases]


def _measure_in_turns(case: Result) -> list[Result]:
    """Measures a case with this l2l_keras, and in turns with the other one if there is one."""
    this = Path(l2l_keras.__file__).parents[1]
    folders = [str(Path(folder).resolve()) for folder in (this, FLAGS.against) if folder]
    turns = min(FLAGS.rounds, 3) if FLAGS.against else 1
    runs = [[_measure(case, folder) for folder in folders] for _ in range(turns)]
    results = []
    for number, folder in enumerate(folders):
        own = sorted((turn[number] for turn in runs), key=lambda result: result["steps/s"])
        speed = statistics.median(turn[number]["steps/s"] / turn[-1]["steps/s"] for turn in runs)
        compared = {"speed": speed, "of": folder} if FLAGS.against else {}
        results.append({**own[turns // 2], **compared})
    return results


def _measure(case: Result, folder: str) -> Result:
    """Measures a case in a fresh process, with the l2l_keras in a folder."""
    path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"KERAS_BACKEND": case.get("backend", "tensorflow"), "PYTHONPATH": path}
    if FLAGS.threads:
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        environment |= dict.fromkeys(names, str(FLAGS.threads))
    named = {**case, "class": _console.RULES.get(case.get("rule", ""))}
    settings = (named, FLAGS.threads, FLAGS.rounds, FLAGS.seconds)
    worker = subprocess.run(
        [sys.executable, str(_WORKER), json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if worker.returncode:
        lines = worker.stderr.strip().splitlines() or ["no message"]
        if worker.returncode < 0:  # As it ends where memory runs out.
            lines.append(f"ended by {signal.Signals(-worker.returncode).name}")
        raise _console.UserError(f"The measurement of {case} failed: {lines[-1]}")
    return {**case, **json.loads(worker.stdout.splitlines()[-1])}


def console() -> None:
    """Entry point of `l2l-benchmark`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
