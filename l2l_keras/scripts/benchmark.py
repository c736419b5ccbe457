r"""Measures how fast meta-training is on this machine.

For each problem, in a process of its own: inner steps per second of meta-training the paper's
2x20 LSTM (windows of 20 steps, Adam on the rule's weights included), the share of the speed of a
plain matrix product (sgemm, measured in turn with it) that the rule's arithmetic reaches, the time
until the first window is done (tracing and compiling), and the process's peak memory.

  l2l-benchmark                 # all processor cores
  l2l-benchmark --threads=1     # one
  l2l-benchmark --json=speed.json

The problems are the ones by which learned optimizers have been compared before: `quadratic`, 128
functions of 10 dimensions at once, and `mnist_mlp`, a 784-20-10 sigmoid network with minibatches
of 128 (of generated pixels: the speed does not depend on them, and nothing is downloaded).

The rule's arithmetic is counted as its matrix products alone, 2 operations a weight and coordinate
forward and 4 backward.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from l2l_keras import evaluation, meta, rules, tasks
from l2l_keras.scripts import _console

FLAGS = flags.FlagValues()
_PROBLEM = flags.DEFINE_multi_enum(
    "problem",
    ["quadratic", "mnist_mlp"],
    ["quadratic", "mnist_mlp"],
    "What to measure.",
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
    "worker", False, "Measure in this process, and print JSON.", flag_values=FLAGS
)

_UNROLL = 20
_SGEMM = (4096, 512, 512)


def main(argv: list[str]) -> None:
    """Measures what the flags say and prints a table.

    Args:
        argv: The command line without its flags.

    Raises:
        UserError: If a measurement fails.

    Example:
        >>> FLAGS(["l2l-benchmark", "--threads=1"])  # doctest: +SKIP
        >>> main(["l2l-benchmark"])  # doctest: +SKIP
    """
    del argv
    if _WORKER.value:
        _console.set_threads(_THREADS.value)
        print(json.dumps(_measure(_PROBLEM.value[0])))
        return
    if _JSON.value:
        _console.writable_directory(Path(_JSON.value).parent)
    results = [_in_a_process(problem) for problem in _PROBLEM.value]
    print(
        f"{platform.processor() or platform.machine()}, threads: {_THREADS.value or 'all'}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, median of {_ROUNDS.value}\n"
    )
    print("problem    inner steps/s  of sgemm  (sgemm GFLOP/s)  first call  peak memory")
    for r in results:
        print(
            f"{r['problem']:<9}  {r['steps_per_second']:>13.0f}  {r['sgemm_share']:>8.1%}  "
            f"{r['sgemm_gflops']:>15.1f}  {r['first_call_seconds']:>8.1f} s  "
            f"{r['peak_memory_bytes'] / 1e9:>8.2f} GB"
        )
    if _JSON.value:
        settings = {"threads": _THREADS.value, "versions": evaluation.versions()}
        _console.write_text(
            Path(_JSON.value), json.dumps({**settings, "results": results}, indent=2)
        )


def _in_a_process(problem: str) -> dict[str, Any]:
    """Measures one problem in a fresh process, whose peak memory is its own."""
    flags_of_worker = ("threads", "rounds", "seconds")
    command = [sys.executable, "-m", "l2l_keras.scripts.benchmark", "--worker"]
    command += [f"--problem={problem}"]
    command += [f"--{name}={FLAGS[name].value}" for name in flags_of_worker]
    worker = subprocess.run(command, capture_output=True, text=True, check=False)
    if worker.returncode:
        lines = worker.stderr.strip().splitlines() or ["no message"]
        raise _console.UserError(f"The measurement of {problem} failed: {lines[-1]}")
    return json.loads(worker.stdout.splitlines()[-1])


def _measure(problem: str) -> dict[str, Any]:
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

    products = 2 * sum(w.shape[0] * w.shape[1] for w in rule.weights if len(w.shape) == 2)
    flop_per_step = 3 * products * task.size
    rates, sgemm_rates, shares = [], [], []
    sgemm = _Sgemm()
    for _ in range(_ROUNDS.value):
        before = sgemm.gflops(_SECONDS.value / 4)
        rate = _steps_per_second(meta_model, _SECONDS.value)
        after = sgemm.gflops(_SECONDS.value / 4)
        rates.append(rate)
        sgemm_rates.append((before + after) / 2)
        shares.append(rate * flop_per_step / 1e9 / sgemm_rates[-1])
    return {
        "problem": problem,
        "coordinates": task.size,
        "steps_per_second": statistics.median(rates),
        "sgemm_share": statistics.median(shares),
        "sgemm_gflops": statistics.median(sgemm_rates),
        "first_call_seconds": first_call,
        "peak_memory_bytes": peak_memory,
    }


def _steps_per_second(meta_model: meta.MetaModel, seconds: float) -> float:
    """Meta-trains for at least so many seconds, whole episodes."""
    start = time.perf_counter()
    windows = 0
    while (elapsed := time.perf_counter() - start) < seconds or not windows:
        _windows(meta_model, 5)
        windows += 5
    return windows * _UNROLL / elapsed


def _windows(meta_model: meta.MetaModel, count: int) -> None:
    for _ in range(count):
        meta_model.train_step(None)


class _Sgemm:
    """A plain product of two float32 matrices."""

    def __init__(self) -> None:
        m, k, n = _SGEMM
        self._a, self._b = tf.random.normal((m, k)), tf.random.normal((k, n))
        self._product = tf.function(tf.matmul, autograph=False)
        self._product(self._a, self._b)

    def gflops(self, seconds: float) -> float:
        """Returns the rate over at least so many seconds."""
        start = time.perf_counter()
        count = 0
        while (elapsed := time.perf_counter() - start) < seconds or not count:
            self._product(self._a, self._b).numpy()
            count += 1
        return 2.0 * np.prod(_SGEMM) * count / elapsed / 1e9


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
