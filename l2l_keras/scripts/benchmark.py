r"""Measures how fast this machine meta-trains, or what using a learned optimizer costs.

  l2l-benchmark                        # meta-training, all processor cores
  l2l-benchmark --threads=1            # one
  l2l-benchmark --json=speed.json
  l2l-benchmark --what=apply           # steps of a LearnedOptimizer
  l2l-benchmark --what=apply --preset=quadratic --coordinates=1_000_000 --variables=2
  l2l-benchmark --what=apply --backend=jax --rule=rnnprop --coordinates=100_000 --variables=10

Each case is measured in a process of its own. "Of sgemm" is the share of the speed of a plain
matrix product (measured in turn with it) that the matrix products of the rule's arithmetic reach,
and nothing else is counted: 2 operations a weight and coordinate forward, and in meta-training 4
backward; "-" where a rule has none for coordinates.

--what=meta_train, the default: inner steps per second of meta-training the paper's 2x20 LSTM
(windows of 20 steps, Adam on the rule's weights included), the time until the first window is done
(tracing and compiling), and the process's peak memory. The problems are the ones by which learned
optimizers have been compared before: `quadratic`, 128 functions of 10 dimensions at once, and
`mnist_mlp`, a 784-20-10 sigmoid network with minibatches of 128 (of generated pixels: the speed
does not depend on them, and nothing is downloaded).

--what=apply: nanoseconds a coordinate of a step with given gradients, as the backend's training
takes it (compiled; eager on PyTorch), Adam's on the same variables, how many times as long it takes
(measured in turn), and how fast memory can be copied (bytes read and written). State is what the
optimizer keeps a coordinate (Adam: 8 bytes). Scratch is the process's largest resident set in a
step, less what it was before the first; "first" is that of the first three steps, in which
compilers run. The first call is tracing, compiling and one step; building the optimizer comes
before it. The defaults take about half an hour, and 7 GB of memory.
"""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from l2l_keras import evaluation, meta, rules, tasks
from l2l_keras.scripts import _benchmark_timing as timing
from l2l_keras.scripts import _console

_BACKENDS = ("tensorflow", "jax", "torch")
_UNROLL = 20

FLAGS = flags.FlagValues()
_WHAT = flags.DEFINE_enum(
    "what",
    "meta_train",
    ["meta_train", "apply"],
    "What to measure: meta-training, or steps of a LearnedOptimizer.",
    flag_values=FLAGS,
)
_PROBLEM = flags.DEFINE_multi_enum(
    "problem",
    ["quadratic", "mnist_mlp"],
    ["quadratic", "mnist_mlp"],
    "What to meta-train on. Repeatable.",
    flag_values=FLAGS,
)
_BACKEND = flags.DEFINE_multi_enum(
    "backend",
    None,
    _BACKENDS,
    "Keras backend to apply a rule on; those that are installed by default. Repeatable.",
    flag_values=FLAGS,
)
_RULE = flags.DEFINE_multi_enum(
    "rule",
    ["coordinatewise_lstm"],
    sorted(_console.RULES),
    "Rule to apply. Repeatable.",
    flag_values=FLAGS,
)
_PRESET = flags.DEFINE_multi_string(
    "preset", None, "Preset to apply, instead of rules. Repeatable.", flag_values=FLAGS
)
_COORDINATES = flags.DEFINE_multi_integer(
    "coordinates",
    [10_000, 1_000_000, 10_000_000],
    "Number of coordinates to apply a rule to. Repeatable.",
    lower_bound=1,
    flag_values=FLAGS,
)
_VARIABLES = flags.DEFINE_multi_integer(
    "variables",
    [1, 40, 400],
    "Number of variables that the coordinates are divided into. Repeatable.",
    lower_bound=1,
    flag_values=FLAGS,
)
_COLUMNS = flags.DEFINE_integer(
    "columns",
    0,
    "Columns of the variables, which are matrices then; vectors by default.",
    lower_bound=0,
    flag_values=FLAGS,
)
_STATE_DTYPE = flags.DEFINE_enum(
    "state_dtype",
    "float32",
    ["float32", "bfloat16"],
    "What the state of an applied rule is kept in.",
    flag_values=FLAGS,
)
_THREADS = flags.DEFINE_integer(
    "threads", 0, "Processor threads; all by default.", lower_bound=0, flag_values=FLAGS
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 7, "Measurements of each kind; medians are shown.", lower_bound=1, flag_values=FLAGS
)
_SECONDS = flags.DEFINE_float(
    "seconds", 1.0, "Least seconds of a measurement.", lower_bound=0.0, flag_values=FLAGS
)
_JSON = flags.DEFINE_string("json", None, "File for the figures, as JSON.", flag_values=FLAGS)
_WORKER = flags.DEFINE_boolean(
    "worker",
    False,
    "Measure meta-training on one problem in this process, and print JSON.",
    flag_values=FLAGS,
)

# Flags that only one of the measurements has.
_OF = {
    "meta_train": (_PROBLEM,),
    "apply": (_BACKEND, _RULE, _PRESET, _COORDINATES, _VARIABLES, _COLUMNS, _STATE_DTYPE),
}

Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]
"""Heading and text of each column of a table, given a result."""

_META_TRAIN_COLUMNS: Columns = {
    "problem": lambda r: r["problem"],
    "inner steps/s": lambda r: f"{r['steps_per_second']:.0f}",
    "of sgemm": lambda r: f"{r['sgemm_share']:.1%}",
    "(sgemm GFLOP/s)": lambda r: f"{r['sgemm_gflops']:.1f}",
    "first call": lambda r: f"{r['first_call_seconds']:.1f} s",
    "peak memory": lambda r: f"{r['peak_memory_bytes'] / 1e9:.2f} GB",
}
_APPLY_COLUMNS: Columns = {
    "backend": lambda r: r["backend"],
    "rule": lambda r: r.get("rule") or r["preset"],
    "coordinates": lambda r: f"{r['coordinates']:,}",
    "variables": lambda r: f"{r['variables']}",
    "ns/coord.": lambda r: f"{r['ns_per_coordinate']:.1f}",
    "(Adam)": lambda r: f"{r['adam_ns_per_coordinate']:.1f}",
    "times Adam": lambda r: f"{r['times_adam']:.2f}",
    "of sgemm": lambda r: f"{r['sgemm_share']:.1%}" if r["sgemm_share"] else "-",
    "(sgemm GFLOP/s)": lambda r: f"{r['sgemm_gflops']:.1f}",
    "(copy GB/s)": lambda r: f"{r['copy_bytes_per_second'] / 1e9:.1f}",
    "state/coord.": lambda r: f"{r['state_bytes_per_coordinate']:.0f} B",
    "scratch": lambda r: _megabytes(r["steady_scratch_bytes"]),
    "first": lambda r: _megabytes(r["scratch_bytes"]),
    "first/coord.": lambda r: _bytes(r["scratch_bytes_per_coordinate"]),
    "build": lambda r: f"{r['build_seconds']:.2f} s",
    "first call": lambda r: f"{r['first_call_seconds']:.2f} s",
    "(Adam's)": lambda r: f"{r['adam_first_call_seconds']:.2f} s",
}


class _Case(NamedTuple):
    """What one process measures.

    Attributes:
        settings: What tells it from others, by the names of flags.
        worker: The module to run, and its arguments.
        environment: Environment variables to set.
    """

    settings: dict[str, Any]
    worker: list[str]
    environment: dict[str, str] = {}


def main(argv: list[str]) -> None:
    """Measures what the flags say and prints a table.

    Args:
        argv: The command line without its flags.

    Raises:
        UserError: If the flags do not fit together, or a measurement fails.

    Example:
        >>> FLAGS(["l2l-benchmark", "--threads=1"])  # doctest: +SKIP
        >>> main(["l2l-benchmark"])  # doctest: +SKIP
    """
    del argv
    if _WORKER.value:
        _console.set_threads(_THREADS.value)
        print(json.dumps(_measure_meta_training(_PROBLEM.value[0])))
        return
    _refuse_flags_of_others()
    if _WHAT.value == "apply":
        cases, columns = _apply_cases(), _APPLY_COLUMNS
    else:
        cases, columns = _meta_train_cases(), _META_TRAIN_COLUMNS
    if _JSON.value:
        _console.writable_directory(Path(_JSON.value).parent)
    results = list(_results(cases))
    applied_on = sorted(
        {f"{r['backend']} {r['backend_version']}" for r in results if "backend" in r}
    )
    print(
        f"{platform.processor() or platform.machine()}, threads: {_THREADS.value or 'all'}, "
        f"{', '.join(applied_on) or f'TensorFlow {tf.__version__}'}, Keras {keras.__version__}, "
        f"median of {_ROUNDS.value}\n"
    )
    print(_table(results, columns))
    if _JSON.value:
        settings = {
            "what": _WHAT.value,
            "threads": _THREADS.value,
            "versions": evaluation.versions(),
        }
        _console.write_text(
            Path(_JSON.value), json.dumps({**settings, "results": results}, indent=2)
        )


def _refuse_flags_of_others() -> None:
    """Raises an error for a flag that the measurement would pass over."""
    for what, holders in _OF.items():
        for holder in holders:
            if what != _WHAT.value and FLAGS[holder.name].present:
                raise _console.UserError(
                    f"--{holder.name} is a flag of --what={what}. Received: --what={_WHAT.value}",
                    _console.USAGE,
                )


def _meta_train_cases() -> list[_Case]:
    """Returns a case for each problem, measured by this script."""
    flags_of_worker = ("threads", "rounds", "seconds")
    command = ["l2l_keras.scripts.benchmark", "--worker"]
    command += [f"--{name}={FLAGS[name].value}" for name in flags_of_worker]
    return [
        _Case({"problem": problem}, [*command, f"--problem={problem}"])
        for problem in _PROBLEM.value
    ]


def _apply_cases() -> list[_Case]:
    """Returns a case for each combination, measured by a script that needs no TensorFlow."""
    installed = [name for name in _BACKENDS if importlib.util.find_spec(name)]
    backends = _BACKEND.value or installed
    if missing := [name for name in backends if name not in installed]:
        raise _console.UserError(
            f"Expected --backend to be one of those installed, {', '.join(installed)}. "
            f"Received: {missing[0]}"
        )
    if FLAGS["rule"].present and _PRESET.value:
        raise _console.UserError("Expected --rule or --preset. Received: both", _console.USAGE)
    columns = _COLUMNS.value
    if columns and (uneven := [count for count in _COORDINATES.value if count % columns]):
        raise _console.UserError(
            f"Expected --coordinates to be a multiple of --columns. Received: {uneven[0]} and "
            f"{columns}",
            _console.USAGE,
        )
    fewest = min(_COORDINATES.value) // max(columns, 1)
    if max(_VARIABLES.value) > fewest:
        raise _console.UserError(
            "No variable may be empty: expected at least as many "
            f"{'rows' if columns else '--coordinates'} as --variables. "
            f"Received: {fewest} and {max(_VARIABLES.value)}",
            _console.USAGE,
        )
    for preset in _PRESET.value or ():
        rule, _ = _console.load_preset(preset)
        if not isinstance(rule, rules.UpdateRule):
            raise _console.UserError(
                f"Expected a preset of one rule. Received: {preset}, which has one for each of "
                f"{list(rule)}"
            )
    how = {"threads": _THREADS.value, "rounds": _ROUNDS.value, "seconds": _SECONDS.value}
    cases = []
    kind = "preset" if _PRESET.value else "rule"
    for backend, rule, coordinates, variables in itertools.product(
        backends, _PRESET.value or _RULE.value, _COORDINATES.value, _VARIABLES.value
    ):
        sizes = {"coordinates": coordinates, "variables": variables, "columns": columns}
        stored = {"state_dtype": _STATE_DTYPE.value}
        name = rule if _PRESET.value else _console.RULES[rule].__name__
        arguments = {"rule": name, **sizes, **stored, **how}
        environment = {"KERAS_BACKEND": backend}
        if backend == "jax" and _THREADS.value == 1:
            one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one_thread}".strip()
        cases.append(
            _Case(
                {"backend": backend, kind: rule, **sizes, **stored},
                ["l2l_keras.scripts._benchmark_apply", json.dumps(arguments)],
                environment,
            )
        )
    return cases


def _results(cases: Sequence[_Case]) -> Iterator[dict[str, Any]]:
    """Measures one case after the other, and says on standard error where it is."""
    start = time.monotonic()
    for done, case in enumerate(cases):
        name = " ".join(f"--{flag}={value}" for flag, value in case.settings.items())
        if len(cases) > 1:
            left = ""
            if done:
                seconds = (time.monotonic() - start) / done * (len(cases) - done)
                left = f"  (about {datetime.timedelta(seconds=round(seconds))} left)"
            print(f"[{done + 1}/{len(cases)}] {name}{left}", file=sys.stderr, flush=True)
        yield {**case.settings, **_in_a_process(name, case)}


def _in_a_process(name: str, case: _Case) -> dict[str, Any]:
    """Measures a case in a fresh process, whose peak memory is its own."""
    worker = subprocess.run(
        [sys.executable, "-m", *case.worker],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **case.environment},
    )
    if worker.returncode:
        lines = worker.stderr.strip().splitlines() or ["no message"]
        if worker.returncode < 0:  # As it does without a word where memory runs out.
            lines.append(f"ended by {signal.Signals(-worker.returncode).name}")
        raise _console.UserError(f"The measurement of {name} failed: {lines[-1]}")
    return json.loads(worker.stdout.splitlines()[-1])


def _table(results: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Returns results as a table, whose first column is aligned to the left."""
    rows = [list(columns), *([text(result) for text in columns.values()] for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _megabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f} MB"


def _bytes(count: float | None) -> str:
    return "-" if count is None else f"{count:,.0f} B"


def _measure_meta_training(problem: str) -> dict[str, Any]:
    """Measures one problem in this process."""
    rule = rules.CoordinatewiseLSTM(
        preprocessing="none" if problem == "quadratic" else "log_sign", seed=0
    )
    task = tasks.Quadratic() if problem == "quadratic" else _generated_mnist()
    start = time.perf_counter()
    meta_model = meta.MetaModel(rule, task, horizon=5 * _UNROLL, unroll=_UNROLL)
    meta_model.compile(keras.optimizers.Adam(1e-4, global_clipnorm=1.0))
    _windows(meta_model, 1)
    first_call = time.perf_counter() - start
    # Before anything that only the comparison needs.
    _windows(meta_model, 5)
    peak_memory = _console.peak_memory()

    # Whole episodes. Backward, there are two products for each one forward.
    steps = 5 * _UNROLL
    operations = 3 * timing.product_operations(rule) * task.size * steps
    measured = timing.beside_sgemm(
        lambda: _windows(meta_model, 5), operations, _ROUNDS.value, _SECONDS.value
    )
    return {
        "coordinates": task.size,
        "steps_per_second": measured.rate * steps,
        "sgemm_share": measured.sgemm_share,
        "sgemm_gflops": measured.sgemm_gflops,
        "first_call_seconds": first_call,
        "peak_memory_bytes": peak_memory,
    }


def _windows(meta_model: meta.MetaModel, count: int) -> None:
    for _ in range(count):
        meta_model.train_step(None)


def _generated_mnist() -> tasks.Task:
    """Returns the MNIST network on random pixels."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2_000, 28, 28, 1), np.uint8)
    labels = generator.integers(0, 10, (2_000,), np.int32)
    data = dict.fromkeys(("train", "validation", "test"), (pixels, labels))
    return tasks.image_mlp(data, name="mnist_mlp")


def console() -> None:
    """Entry point of `l2l-benchmark`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
