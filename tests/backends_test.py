"""Runs the tests of the optimizer on the other Keras backends, in processes of their own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Those that import nothing of TensorFlow.
TESTS = [
    "contract",
    "engine",
    "presets",
    "safeguards/adam_fallback_test.py",
    "safeguards/skip_steps_test.py",
    "callbacks_test.py",
    "optimizer_test.py",
    "parameter_groups_test.py",
]
BACKENDS = [name for name in ("tensorflow", "jax", "torch") if name != keras.backend.backend()]


@pytest.fixture(name="runs", scope="module")
def runs_fixture(tmp_path_factory):
    """Runs the tests on all other backends at once; each is one process."""
    folder = tmp_path_factory.mktemp("runs")
    # Most optimizers compile what another one has compiled before.
    jax_cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    runs = {}
    for backend in filter(importlib.util.find_spec, BACKENDS):
        with (folder / backend).open("w") as output:
            runs[backend] = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-n0", *(f"tests/{test}" for test in TESTS)],
                cwd=ROOT,
                env={**os.environ, "KERAS_BACKEND": backend, **jax_cache},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
    yield lambda backend: (runs[backend].wait(), (folder / backend).read_text())
    for run in runs.values():
        run.kill()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_optimizer_on(backend, runs):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"Needs {backend}.")
    status, output = runs(backend)
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
