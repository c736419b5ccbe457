"""Tests that what the README shows works, on every backend that is installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from l2l_keras import LearnedOptimizer

ROOT = Path(__file__).resolve().parents[1]

LOADING = """
import keras
try:
    keras.models.load_model("model.keras")
except TypeError as error:
    assert "Could not locate class 'LearnedOptimizer'" in str(error)
else:
    raise AssertionError("loaded without l2l_keras")
model = keras.models.load_model("model.keras", compile=False)
assert model(keras.ops.ones((1, 3))).shape == (1, 1)
import l2l_keras
optimizer = keras.models.load_model("model.keras").optimizer
assert isinstance(optimizer, l2l_keras.LearnedOptimizer)
"""


def run_in_fresh_process(arguments, folder, backend="tensorflow"):
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_first_program_trains_on(backend, tmp_path):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"Needs {backend}.")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(# train_digits\.py\n.*?)```", readme, flags=re.DOTALL)
    (tmp_path / "train_digits.py").write_text(program, encoding="utf-8")
    last = run_in_fresh_process(["train_digits.py"], tmp_path, backend).splitlines()[-1]
    assert last.startswith(backend)
    assert float(re.search(r"'accuracy': ([\d.]+)", last)[1]) > 0.85


def test_a_saved_model_needs_the_import_or_compile_false(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer=LearnedOptimizer.from_preset("general-fast"), loss="mse")
    model.save(tmp_path / "model.keras")
    run_in_fresh_process(["-c", LOADING], tmp_path)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
