"""Tests that what the README shows works, on every backend that is installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from l2l_keras import LearnedOptimizer, studies, tasks

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

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


def program(page, name):
    """The code of a page that begins with a comment of this name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (code,) = re.findall(rf"```python\n(# {name}\n.*?)```", text, flags=re.DOTALL)
    return code


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
def test_the_first_program_prints_what_the_readme_says(backend, tmp_path):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"Needs {backend}.")
    code = program("README.md", "train_digits.py")
    code += f"assert keras.backend.backend() == {backend!r}\n"
    (tmp_path / "train_digits.py").write_text(code, encoding="utf-8")
    printed = run_in_fresh_process(["train_digits.py"], tmp_path, backend)
    learned, adam, tuned = (float(line.split()[-1]) for line in printed.splitlines())
    assert learned > tuned > adam
    if backend == "tensorflow":  # Others draw other initial weights.
        shown = re.findall(r"^(?:general-fast|Adam\S*) +([\d.]+)$", README, flags=re.MULTILINE)
        assert (learned, adam, tuned) == pytest.approx([float(n) for n in shown], abs=0.02)


def test_a_saved_model_needs_the_import_or_compile_false(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer=LearnedOptimizer.from_preset("general-fast"), loss="mse")
    model.save(tmp_path / "model.keras")
    run_in_fresh_process(["-c", LOADING], tmp_path)


def test_the_task_of_the_documentation_is_one(tmp_path):
    path = tmp_path / "my_task.py"
    path.write_text(program("docs/how_to/meta_train.md", "my_task.py"), encoding="utf-8")
    task = tasks.get(f"{path}:make_task")
    assert (task.name, task.holds_out) == ("my_task", True)
    assert task.batch("train", (0, 0))[0].shape == (64, 8, 8, 1)


def test_the_study_of_the_documentation_is_one(tmp_path):
    path = tmp_path / "study.py"
    path.write_text(program("docs/how_to/study.md", "study.py"), encoding="utf-8")
    assert list(studies.load(str(path)).problems) == ["digits", "wider", "longer"]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
