"""Runs the tests of the optimizer on the other Keras backends, in processes of their own."""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Those that import nothing of TensorFlow.
TESTS = {
    "presets": ["presets"],
    "everything else": [
        "contract",
        "engine",
        "safeguards/adam_fallback_test.py",
        "safeguards/skip_steps_test.py",
        "advice_test.py",
        "callbacks_test.py",
        "optimizer_test.py",
        "parameter_groups_test.py",
    ],
}
BACKENDS = [name for name in ("tensorflow", "jax", "torch") if name != keras.backend.backend()]


@pytest.fixture(name="runs", scope="module")
def runs_fixture(tmp_path_factory):
    """Runs the tests on all other backends at once, in two processes for each."""
    folder = tmp_path_factory.mktemp("runs")
    # Most optimizers compile what another one has compiled before.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    # Compiles in half the time. Only presets are held to the rounding errors of what is compiled.
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    runs = {}
    for backend, part in itertools.product(filter(importlib.util.find_spec, BACKENDS), TESTS):
        with (folder / f"{backend} {part}").open("w") as output:
            runs[backend, part] = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-n0", *(f"tests/{t}" for t in TESTS[part])],
                cwd=ROOT,
                env={
                    **os.environ,
                    **cache,
                    "KERAS_BACKEND": backend,
                    "XLA_FLAGS": "" if part == "presets" else quick,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )
    yield lambda *run: (runs[run].wait(), (folder / " ".join(run)).read_text())
    for run in runs.values():
        run.kill()


@pytest.mark.parametrize("part", TESTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_optimizer_on(backend, part, runs):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"Needs {backend}.")
    status, output = runs(backend, part)
    assert status == 0, output[-5000:]


def test_importing_the_package_imports_no_tensorflow():
    program = "import sys, l2l_keras; assert 'tensorflow' not in sys.modules"
    others = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
    if not others:
        pytest.skip("Needs JAX or PyTorch.")
    for backend in others:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
