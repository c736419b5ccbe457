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
import timeit
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
_WINDOWS, _STEPS = 5, 100  # Of an episode of meta-training.
_SGEMM_OPERATIONS = 2 * 4096 * 512 * 512

FLAGS = flags.FlagValues()
define = _console.define_in(FLAGS)
define.enum("what", "meta_train", ["meta_train", "apply"], "What to measure.")
define.multi_enum("problem", _PROBLEMS, _PROBLEMS, "What to meta-train on. Repeatable.")
define.multi_enum("backend", None, _BACKENDS, "Keras backend; all that are installed.")
define.multi_enum("rule", [], sorted(_console.RULES), "Rule to apply: coordinatewise_lstm.")
define.multi_string("preset", [], "Preset to apply. Repeatable.")
define.multi_count("coordinates", [10_000, 1_000_000, 10_000_000], "Weights of the model.")
define.multi_count("variables", [1, 40, 400], "Variables that these are divided into.")
define.integer("columns", 0, "Columns of the variables; 0 for vectors.", lower_bound=0)
define.enum("state_dtype", "float32", ["float32", "bfloat16"], "Type of a rule's state.")
define.integer("threads", 0, "Processor threads; 0: all.", lower_bound=0)
define.count("rounds", 7, "Rounds of measurements; medians are shown.")
define.float("seconds", 1.0, "Least of a measurement.", lower_bound=0.0)
define.string("against", None, "Folder of another l2l_keras.")
define.string("json", None, "File for the results, as JSON.")


def main(argv: list[str]) -> None:
    """Measures what the flags say and prints a table."""
    del argv
    cases = _apply_cases() if FLAGS.what == "apply" else [{"problem": p} for p in FLAGS.problem]
    if FLAGS.json:
        _console.writable_directory(Path(FLAGS.json).parent)
    results = []
    for number, case in enumerate(cases, start=1):
        settings = " ".join(f"--{name}={value}" for name, value in case.items())
        print(f"[{number}/{len(cases)}] {settings}", file=sys.stderr, flush=True)
        results += _measure_in_turns(case)
    from l2l_keras.evaluation import files, report  # They import TensorFlow, workers may not.

    print(
        f"{platform.processor() or platform.machine()}, threads: {FLAGS.threads or 'all'}, "
        f"Keras {keras.__version__}, median of {FLAGS.rounds}\n"
    )
    rows = [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in result.values()]
        for result in results
    ]
    print(report.lay_out(list(results[0]), rows, markdown=False))
    if FLAGS.json:
        content = {"what": FLAGS.what, "threads": FLAGS.threads, "results": results}
        path = Path(FLAGS.json)
        files.write_files({path.name: {**content, "versions": files.versions()}}, path.parent)


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
    return {**case, **json.loads(worker.stdout.splitlines()[-1])}


def _work(case: Result, threads: int, rounds: int, seconds: float) -> Result:
    """Measures a case in this process."""
    if threads and hasattr(os, "sched_setaffinity"):  # JAX counts the cores that it may use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    result = (_meta_training if "problem" in case else _applying)(case, rounds, seconds)
    return {"version": sys.modules[keras.backend.backend()].__version__, **result}


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

    meta_model = l2l_keras.meta.MetaModel(rule, task, horizon=_STEPS)
    meta_model.compile(keras.optimizers.Adam(1e-4, global_clipnorm=1.0))
    window = functools.partial(meta_model.train_step, None)
    first_call = timeit.timeit(window, number=1)
    episode = functools.partial(timeit.timeit, window, number=_WINDOWS)
    episode()
    peak_memory = _console.peak_memory()  # Before anything that is not meta-training.
    speed, sgemm = _rates([episode, _sgemm()], rounds, seconds)
    # Backward, there are two matrix products for each one forward.
    operations = 3 * _operations(rule) * task.size * _STEPS
    return {
        "weights": task.size,
        "steps/s": speed * _STEPS,
        "of sgemm": speed * operations / (sgemm * _SGEMM_OPERATIONS),
        "sgemm, GFLOP/s": sgemm * _SGEMM_OPERATIONS / 1e9,
        "first call, s": first_call,
        "peak, MB": peak_memory / 1e6,
    }


def _applying(case: Result, rounds: int, seconds: float) -> Result:
    """Measures steps of a `LearnedOptimizer`, and of Adam; scratch is NaN where it is unknown."""
    size, variables, columns = case["coordinates"], case["variables"], case["columns"]
    # First a small problem, so that memory of libraries and compilers is not counted; of another
    # size, because programs may be cached.
    warm_up = _make_step(_learned(case), max(variables, min(size, 10_000)) + 1, variables, 0)
    timeit.timeit(warm_up, number=2)
    optimizer = _learned(case)
    step = _make_step(optimizer, size, variables, columns)
    memory = _reset_peak()
    first_call = timeit.timeit(step, number=1)
    timeit.timeit(step, number=2)
    scratch_with_compilers = _peak() - memory
    _reset_peak()
    timeit.timeit(step, number=2)
    scratch = _peak() - memory
    adam_step = _make_step(keras.optimizers.Adam(), size, variables, columns)
    adam_first_call = timeit.timeit(adam_step, number=1)
    speed, adam_speed, sgemm = _rates([step, adam_step, _sgemm()], rounds, seconds)
    operations = _operations(optimizer.rule) * size
    state = [v for v in optimizer.variables if "/state_" in v.path or "/tensor_state_" in v.path]
    state_bytes = sum(np.dtype(v.dtype).itemsize * math.prod(v.shape) for v in state)
    return {
        "steps/s": speed,
        "ns/weight": 1e9 / speed / size,
        "(Adam)": 1e9 / adam_speed / size,
        "times Adam": adam_speed / speed,
        "of sgemm": speed * operations / (sgemm * _SGEMM_OPERATIONS),
        "sgemm, GFLOP/s": sgemm * _SGEMM_OPERATIONS / 1e9,
        "state, B/weight": state_bytes / size,
        "scratch, MB": scratch / 1e6,
        "with compilers, MB": scratch_with_compilers / 1e6,
        "first call, s": first_call,
        "(Adam), s": adam_first_call,
    }


def _learned(case: Result) -> l2l_keras.LearnedOptimizer:
    """Returns an optimizer with a new rule, or with that of a preset."""
    name, own = case["rule"], case["rule"] in _console.RULES
    rule = _console.RULES[name](seed=0) if own else l2l_keras.presets.load_preset(name)[0]
    return l2l_keras.LearnedOptimizer(rule, state_dtype=case["state_dtype"])


def _make_step(optimizer: Any, size: int, variables: int, columns: int) -> Call:
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


def _sgemm() -> Call:
    """Returns a function that computes a plain matrix product, and waits for it by reading it."""
    a, b = (keras.random.normal(shape, seed=0) for shape in ((4096, 512), (512, 512)))
    return lambda: keras.ops.convert_to_numpy(a @ b)


def _rates(calls: Sequence[Call], rounds: int, seconds: float) -> list[float]:
    """Returns medians of calls per second; each is measured in turn, for at least `seconds`."""

    def rate(call: Call) -> float:
        count, elapsed = 1, timeit.timeit(call, number=1)
        while elapsed < seconds:
            elapsed += timeit.timeit(call, number=1)
            count += 1
        return count / elapsed

    return np.median([[rate(call) for call in calls] for _ in range(rounds)], axis=0).tolist()


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
