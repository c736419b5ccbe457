"""Tests of tasks by name."""

import sys

import pytest

from l2l_keras import tasks

OWN = """
from __future__ import annotations

import dataclasses

from l2l_keras.tasks import Quadratic


@dataclasses.dataclass
class Settings:
    functions: int = 3


def make(dimension=2):
    return Quadratic(dimension=dimension, functions=Settings().functions)


def wrong():
    return "no task"


def broken():
    raise ZeroDivisionError("an error in the user's task")
"""


@pytest.fixture(name="file")
def file_fixture(tmp_path):
    path = tmp_path / "my_quadratic_task.py"
    path.write_text(OWN)
    return path


def test_a_task_has_the_name_of_its_file(tmp_path):
    path = tmp_path / "house_prices.py"
    path.write_text(
        "import keras, numpy as np\n"
        "from l2l_keras.tasks import KerasTask\n"
        "def model_fn():\n"
        "    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])\n"
        "def make(**options):\n"
        "    x = np.ones((99, 1))\n"
        "    return KerasTask(model_fn, 'mse', (x, x), 4, **options)\n"
    )
    assert tasks.get(f"{path}:make").name == "house_prices"


def test_names():
    images = ["cifar_convnet", "digits_convnet", "digits_mlp"]
    assert tasks.names() == [*images, "general", "mnist_mlp", "neural_art", "quadratic"]


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("quadratic", {}, 1280),
        ("quadratic", {"functions": 2, "dimension": 3}, 6),
        ("digits_mlp", {}, 1510),
        ("digits_mlp", {"layers": (5,)}, 64 * 5 + 5 + 5 * 10 + 10),
    ],
)
def test_tasks_are_made_by_name_with_options(name, options, size):
    task = tasks.get(name, **options)
    assert isinstance(task, tasks.Task)
    assert (task.name, task.size) == (name, size)


@pytest.mark.parametrize(
    ("name", "data"), [("mnist_mlp", "mnist"), ("general", "mnist"), ("cifar_convnet", "cifar10")]
)
def test_stored_data_is_read_from_data_dir(name, data, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"'{data}'.*{tmp_path}"):
        tasks.get(name, data_dir=str(tmp_path), download=False)


def test_tasks_of_files_and_modules_that_may_share_their_name(file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    assert tasks.get(f"{file}:make").size == tasks.get("my_quadratic_task:make").size == 6
    assert tasks.get(f"{file}:make", dimension=4).size == 12
    same = tmp_path / "other" / file.name
    same.parent.mkdir()
    same.write_text(OWN.replace("dimension=2", "dimension=5"))
    module = tmp_path / "dataclasses.py"
    module.write_text("from l2l_keras.tasks import Quadratic as make\n")
    assert tasks.get(f"{same}:make").size == 15
    assert tasks.get(f"{module}:make").size == 1280
    assert tasks.get(f"{file}:make").size == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "Unknown task. Expected one of cifar_convnet, .*Received: 'mnist'"),
        ("digit_mlp", r"Unknown task.*Received: 'digit_mlp' \(did you mean 'digits_mlp'\?\)"),
        ("", "Unknown task.*Received: ''"),
        ("{folder}/missing.py:make", "Expected a Python file that exists. .*missing.py'"),
        ("{file}:missing", "task.py:function, .*functions: make, wrong, broken. .*:missing'$"),
        ("{file}:maek", r"Received: '.*:maek' \(did you mean 'make'\?\)"),
        ("{folder}/empty.py:make", "empty.py:function, with one of its functions: it has none"),
        ("no_such_module:make", "Expected a module that exists. Received: 'no_such_module'"),
        ("{file}:wrong", "must return an l2l_keras.tasks.Task or Mixture. Received: str"),
        ("{file}", "task.py:function, .*functions: make, wrong, broken. Received: .*_task.py'$"),
    ],
)
def test_unknown_tasks_are_refused(name, message, file):
    (file.parent / "empty.py").write_text("from l2l_keras.tasks import Quadratic\n")
    with pytest.raises(ValueError, match=message):
        tasks.get(name.format(file=file, folder=file.parent))


@pytest.mark.parametrize("name", ["quadratic", "mnist_mlp", "{file}:make"])
def test_unknown_options_are_refused(name, file):
    with pytest.raises(ValueError, match="does not take these options: .*'unctions'"):
        tasks.get(name.format(file=file), download=False, unctions=2)


def test_errors_in_a_user_s_file_are_not_hidden(file, tmp_path):
    with pytest.raises(ZeroDivisionError, match="an error in the user's task"):
        tasks.get(f"{file}:broken")
    path = tmp_path / "broken.py"
    path.write_text("import math\nmath.no_such_function()\n")
    modules = set(sys.modules)
    with pytest.raises(AttributeError, match="no_such_function"):
        tasks.get(f"{path}:make")
    assert set(sys.modules) == modules
    path.write_text("import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        tasks.get(f"{path}:make")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
