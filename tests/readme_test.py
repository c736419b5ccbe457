"""Tests that what the README shows works, on every backend that is installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_first_program_trains_on(backend, tmp_path):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"Needs {backend}.")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(# train_digits\.py\n.*?)```", readme, flags=re.DOTALL)
    (tmp_path / "train_digits.py").write_text(program, encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "train_digits.py"],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    last = finished.stdout.splitlines()[-1]
    assert last.startswith(backend)
    assert float(re.search(r"'accuracy': ([\d.]+)", last)[1]) > 0.85


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
