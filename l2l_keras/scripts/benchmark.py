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
training takes it (compiled; eager on PyTorch), Adam's on equal variables, and how fast memory is
copied (bytes read and written). State is what the optimizer keeps per weight (Adam: 8 bytes).
Scratch is the process's largest resident set in later steps, less that before the first; "first" is
that of the first three steps, in which compilers run. The first call is tracing, compiling and one
step. The defaults take about half an hour, and 7 GB of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags

import l2l_keras
from l2l_keras.scripts import _console

Result = dict[str, Any]
Call = Callable[[], Any]

_BACKENDS = ("tensorflow", "jax", "torch")
_PROBLEMS = ("quadratic", "mnist_mlp")
_UNROLL = 20  # The default of `MetaModel`.
_SGEMM = (4096, 512, 512)
_COPIED = 64_000_000  # float32: 256 MB, more than any cache holds.

FLAGS = flags.FlagValues()
_integer = functools.partial(flags.DEFINE_integer, flag_values=FLAGS)
_integers = functools.partial(flags.DEFINE_multi_integer, lower_bound=1, flag_values=FLAGS)
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_choice = functools.partial(flags.DEFINE_enum, flag_values=FLAGS)
_choices = functools.partial(flags.DEFINE_multi_enum, flag_values=FLAGS)
_choice("what", "meta_train", ["meta_train", "apply"], "What to measure.")
_choices("problem", _PROBLEMS, _PROBLEMS, "What to meta-train on. Repeatable.")
_choices("backend", None, _BACKENDS, "Keras backend; all that are installed.")
_choices("rule", None, sorted(_console.RULES), "Rule to apply: coordinatewise_lstm.")
flags.DEFINE_multi_string("preset", [], "Preset to apply. Repeatable.", flag_values=FLAGS)
_integers("coordinates", [10_000, 1_000_000, 10_000_000], "Weights of the model.")
_integers("variables", [1, 40, 400], "Variables that these are divided into.")
_integer("columns", 0, "Columns of the variables; 0 for vectors.", 0)
_choice("state_dtype", "float32", ["float32", "bfloat16"], "Type of a rule's state.")
_integer("threads", 0, "Processor threads; 0: all.", 0)
_integer("rounds", 7, "Rounds of measurements; medians are shown.", 1)
flags.DEFINE_float("seconds", 1.0, "Least of a measurement.", 0.0, flag_values=FLAGS)
_string("against", None, "Folder of another l2l_keras.")
_string("json", None, "File for the results, as JSON.")

_TABLES = {
    "meta_train": (
        "problem|inner steps/s|of sgemm|GFLOP/s|first call, s|peak, B",
        "{problem}|{steps_per_second:.0f}|{sgemm_share:.1%}|{sgemm_gflops:.1f}|"
        "{first_call_seconds:.1f}|{peak_memory_bytes:.3g}",
    ),
    "apply": (
        "backend|rule|weights|variables|ns/weight|(Adam)|times Adam|of sgemm|GFLOP/s|copy, B/s|"
        "state, B|scratch, B|first, B|first call, s|(Adam)",
        "{backend}|{rule}|{coordinates:,}|{variables}|{ns_per_coordinate:.1f}|"
        "{adam_ns_per_coordinate:.1f}|{times_adam:.2f}|{sgemm_share:.1%}|{sgemm_gflops:.1f}|"
        "{copy_bytes_per_second:.3g}|{state_bytes_per_coordinate:.0f}|{steady_scratch_bytes:.3g}|"
        "{scratch_bytes:.3g}|{first_call_seconds:.2f}|{adam_first_call_seconds:.2f}",
    ),
}
"""Headings of the columns of tables, and their texts."""


def main(argv: list[str]) -> None:
    """Measures what the flags say and prints a table.

    Args:
        argv: The command line without its flags.

    Raises:
        UserError: If the flags do not fit together, or a measurement fails.
    """
    del argv
    cases = _apply_cases() if FLAGS.what == "apply" else [{"problem": p} for p in FLAGS.problem]
    if FLAGS.json:
        _console.writable_directory(Path(FLAGS.json).parent)
    results = []
    for number, case in enumerate(cases, start=1):
        settings = " ".join(f"--{name}={value}" for name, value in case.items())
        print(f"[{number}/{len(cases)}] {settings}", file=sys.stderr, flush=True)
        results += _measure_alternately(case)
    headings, texts = _TABLES[FLAGS.what]
    if FLAGS.against:
        headings, texts = f"{headings}|speed|of", f"{texts}|{{speed:.3f}}|{{folder}}"
    rows = [headings.split("|"), *(texts.format(**result).split("|") for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    backends = sorted({f"{r['backend']} {r['backend_version']}" for r in results})
    print(
        f"{platform.processor() or platform.machine()}, threads: {FLAGS.threads or 'all'}, "
        f"{', '.join(backends)}, Keras {keras.__version__}, median of {FLAGS.rounds}\n"
    )
    for row in rows:
        print("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))
    if FLAGS.json:
        evaluation = l2l_keras.evaluation  # Imports TensorFlow, which workers may not need.
        content = {"what": FLAGS.what, "threads": FLAGS.threads, "results": results}
        content["versions"] = evaluation.versions()
        _console.write_text(Path(FLAGS.json), json.dumps(evaluation.finite(content), indent=2))


def _apply_cases() -> list[Result]:
    """Returns the settings of all combinations, by the names of flags."""
    rows = [size / max(FLAGS.columns, 1) for size in FLAGS.coordinates]
    if any(not count.is_integer() or count < max(FLAGS.variables) for count in rows):
        raise _console.UserError(
            "Expected --coordinates to be a multiple of --columns, with a row for each of "
            f"--variables. Received: --coordinates={FLAGS.coordinates}, "
            f"--columns={FLAGS.columns}, --variables={FLAGS.variables}",
            _console.USAGE,
        )
    backends = FLAGS.backend or [name for name in _BACKENDS if importlib.util.find_spec(name)]
    rules = [*FLAGS.preset, *(FLAGS.rule or ())] or ["coordinatewise_lstm"]
    names = ("backend", "rule", "coordinates", "variables", "columns", "state_dtype")
    values = (backends, rules, FLAGS.coordinates, FLAGS.variables)
    cases = itertools.product(*values, [FLAGS.columns], [FLAGS.state_dtype])
    return [dict(zip(names, case, strict=True)) for case in cases]


def _measure_alternately(case: Result) -> list[Result]:
    """Measures a case with this l2l_keras, and with the other one if there is one."""
    this = str(Path(l2l_keras.__file__).parents[1])
    if not FLAGS.against:
        return [_measure(case, this)]
    folders = (this, str(Path(FLAGS.against).resolve()))
    runs = [[_measure(case, folder) for folder in folders] for _ in range(min(FLAGS.rounds, 3))]
    results = [_medians(own) for own in zip(*runs, strict=True)]
    ratio = statistics.median(own["rate"] / other["rate"] for own, other in runs)
    return [{**results[0], "speed": ratio}, {**results[1], "speed": 1.0}]


def _measure(case: Result, folder: str) -> Result:
    """Measures a case in a fresh process, with the l2l_keras in a folder."""
    path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"KERAS_BACKEND": case.get("backend", "tensorflow"), "PYTHONPATH": path}
    if FLAGS.threads:
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        environment |= dict.fromkeys(names, str(FLAGS.threads))
    if FLAGS.threads == 1 and case.get("backend") == "jax":
        one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one_thread}".strip()
    settings = (case, FLAGS.threads, FLAGS.rounds, FLAGS.seconds)
    worker = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(settings)],
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
    return {**case, **json.loads(worker.stdout.splitlines()[-1]), "folder": folder}


def _work(case: Result, threads: int, rounds: int, seconds: float) -> Result:
    """Measures a case in this process."""
    if threads and hasattr(os, "sched_setaffinity"):  # JAX counts the cores that it may use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    backend = keras.backend.backend()
    result = (_meta_training if "problem" in case else _applying)(case, rounds, seconds)
    return {**result, "backend": backend, "backend_version": sys.modules[backend].__version__}


def _meta_training(case: Result, rounds: int, seconds: float) -> Result:
    """Measures meta-training on one problem."""
    preprocessing, task = "none", l2l_keras.tasks.get("quadratic")
    if case["problem"] == "mnist_mlp":
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (2_000, 28, 28, 1), np.uint8)
        data = (images, generator.integers(0, 10, (2_000,), np.int32))
        splits = dict.fromkeys(("train", "validation", "test"), data)
        preprocessing, task = "log_sign", l2l_keras.tasks.image_mlp(splits, name="mnist_mlp")
    rule = l2l_keras.rules.CoordinatewiseLSTM(preprocessing=preprocessing, seed=0)
    start = time.perf_counter()
    meta_model = l2l_keras.meta.MetaModel(rule, task, horizon=5 * _UNROLL)
    meta_model.compile(keras.optimizers.Adam(1e-4, global_clipnorm=1.0))
    meta_model.train_step(None)
    first_call = time.perf_counter() - start

    def episode() -> None:
        for _ in range(5):
            meta_model.train_step(None)

    episode()
    peak_memory = _console.peak_memory()  # Before anything that is not meta-training.
    # Backward, there are two matrix products for each one forward.
    operations = 3 * _operations(rule) * task.size * 5 * _UNROLL
    sgemm = _make_sgemm()
    timing = _medians([_beside_sgemm(episode, operations, sgemm, seconds) for _ in range(rounds)])
    return {
        "coordinates": task.size,
        "steps_per_second": timing["rate"] * 5 * _UNROLL,
        "first_call_seconds": first_call,
        "peak_memory_bytes": peak_memory,
        **timing,
    }


def _applying(case: Result, rounds: int, seconds: float) -> Result:
    """Measures steps of a `LearnedOptimizer`, and of Adam; scratch is NaN where it is unknown."""
    size, variables = case["coordinates"], case["variables"]
    learned = functools.partial(_learned_optimizer, case["rule"], case["state_dtype"])
    # First a small problem, so that memory of libraries and compilers is not counted; of another
    # size, because programs may be cached.
    _call(_make_step(learned(), max(variables, min(size, 10_000)) + 1, variables), 2)
    optimizer = learned()
    step = _make_step(optimizer, size, variables, case["columns"])
    baseline = _reset_peak()
    first_call = _call(step)
    _call(step, 2)
    scratch = _peak() - baseline
    _reset_peak()
    _call(step, 2)
    steady_scratch = _peak() - baseline
    adam_step = _make_step(keras.optimizers.Adam(), size, variables, case["columns"])
    adam_first_call = _call(adam_step)
    operations = _operations(optimizer.rule) * size
    sgemm = _make_sgemm()
    source = np.ones(_COPIED, "float32")
    target = np.zeros_like(source)

    def measure() -> Result:
        timing = _beside_sgemm(step, operations, sgemm, seconds)
        adam_rate = _rate(adam_step, seconds)
        copies = _rate(lambda: np.copyto(target, source), seconds)
        return {
            "ns_per_coordinate": 1e9 / timing["rate"] / size,
            "adam_ns_per_coordinate": 1e9 / adam_rate / size,
            "times_adam": adam_rate / timing["rate"],
            "copy_bytes_per_second": 2 * source.nbytes * copies,
            **timing,
        }

    state = [v for v in optimizer.variables if "/state_" in v.path or "/tensor_state_" in v.path]
    state_bytes = sum(np.dtype(v.dtype).itemsize * math.prod(v.shape) for v in state)
    return {
        **_medians([measure() for _ in range(rounds)]),
        "state_bytes_per_coordinate": state_bytes / size,
        "scratch_bytes": scratch,
        "steady_scratch_bytes": steady_scratch,
        "first_call_seconds": first_call,
        "adam_first_call_seconds": adam_first_call,
    }


def _learned_optimizer(name: str, state_dtype: str) -> l2l_keras.LearnedOptimizer:
    """Returns an optimizer with a new rule, or with that of a preset."""
    if name in _console.RULES:
        rule = _console.RULES[name](seed=0)
        return l2l_keras.LearnedOptimizer(rule, state_dtype=state_dtype)
    return l2l_keras.LearnedOptimizer.from_preset(name, state_dtype=state_dtype)


def _make_step(optimizer: Any, size: int, variables: int, columns: int = 0) -> Call:
    """Returns a function that takes a step, as training with the backend does, and waits for it."""
    numbers = np.random.default_rng(0).standard_normal(size, "float32")
    parts = np.array_split(numbers.reshape(-1, columns) if columns else numbers, variables)
    gradients = [keras.ops.array(part) for part in parts]
    parameters = [keras.Variable(part) for part in parts]
    optimizer.build(parameters)
    # Zeros that were never written to may not occupy memory yet.
    for variable in optimizer.variables:
        variable.assign(variable + 0)
    if keras.backend.backend() == "jax":
        import jax

        jitted = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
        # A step takes over its arguments.
        state = [variable.value for variable in optimizer.variables]
        values = [keras.ops.copy(variable) for variable in parameters]

        def step() -> None:
            values[:], state[:] = jax.block_until_ready(jitted(state, gradients, values))

    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        apply = tf.function(lambda: optimizer.apply(gradients, parameters), autograph=False)

        def step() -> None:
            apply()
            tf.test.experimental.sync_devices()

    else:
        import torch

        def step() -> None:
            optimizer.apply(gradients, parameters)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

    return step


def _operations(rule: Any) -> int:
    """Returns the operations of a rule's matrix products per element and step; 0 if none."""
    if getattr(rule, "scope", "tensor") == "tensor":  # Groups of rules have no scope.
        return 0
    return 2 * sum(math.prod(w.shape) for w in rule.weights if len(w.shape) == 2)


def _make_sgemm() -> Call:
    """Returns a function that computes a plain product of two float32 matrices."""
    a, b = (keras.random.normal(shape, seed=0) for shape in (_SGEMM[:2], _SGEMM[1:]))
    return lambda: keras.ops.convert_to_numpy(a @ b)  # Reading it waits for it.


def _beside_sgemm(call: Call, operations: float, sgemm: Call, seconds: float) -> Result:
    """Measures calls of so many operations, between two measurements of plain products."""
    before = _rate(sgemm, seconds / 4)
    rate = _rate(call, seconds)
    gflops = (before + _rate(sgemm, seconds / 4)) * math.prod(_SGEMM) / 1e9
    return {"rate": rate, "sgemm_gflops": gflops, "sgemm_share": rate * operations / 1e9 / gflops}


def _medians(results: Sequence[Result]) -> Result:
    """Returns the medians of numbers, and the first of other values."""
    columns = {name: [result[name] for result in results] for name in results[0]}
    return {k: v[0] if isinstance(v[0], str) else statistics.median(v) for k, v in columns.items()}


def _rate(call: Call, seconds: float) -> float:
    """Returns calls per second over at least so many seconds, and one call."""
    count, elapsed = 1, _call(call)
    while elapsed < seconds:
        elapsed += _call(call)
        count += 1
    return count / elapsed


def _call(call: Call, times: int = 1) -> float:
    """Calls a function, and returns the seconds that this took."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - start


def _reset_peak() -> float:
    """Resets the peak memory of this process, and returns its memory; NaN if this is impossible."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # Linux with GNU's C library.
        # The library keeps freed memory, which would be counted; later needs would be met from it.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _peak()
    return math.nan


def _peak() -> float:
    """Returns the largest resident set since `_reset_peak` in bytes; NaN if it is unknown."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text() if status.exists() else "")
    return 1024 * int(found[1]) if found else math.nan


def console() -> None:
    """Entry point of `l2l-benchmark`, and of its workers."""
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(_work(*json.loads(sys.argv[2]))))
    else:
        _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
