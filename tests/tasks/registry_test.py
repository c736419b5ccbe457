"""Tests of tasks by name."""

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
    raise ZeroDivisionError("a mistake of the user's")
"""


@pytest.fixture(name="file")
def file_fixture(tmp_path):
    path = tmp_path / "my_quadratic_task.py"
    path.write_text(OWN)
    return path


def test_names():
    assert tasks.names() == [
        "cifar_convnet",
        "digits_convnet",
        "digits_mlp",
        "general",
        "mnist_mlp",
        "neural_art",
        "quadratic",
    ]


@pytest.mark.parametrize(("name", "size"), [("quadratic", 1280), ("digits_mlp", 1510)])
def test_tasks_without_data_are_made_by_name(name, size):
    task = tasks.get(name)
    assert isinstance(task, tasks.Task)
    assert (task.name, task.size) == (name, size)


@pytest.mark.parametrize(
    ("name", "data"), [("mnist_mlp", "mnist"), ("general", "mnist"), ("cifar_convnet", "cifar10")]
)
def test_stored_data_are_looked_for_where_the_arguments_say(name, data, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"'{data}'.*{tmp_path}"):
        tasks.get(name, data_dir=str(tmp_path), download=False)


def test_ones_own_from_a_file(file):
    assert tasks.get(f"{file}:make").size == 6


def test_ones_own_from_a_module(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    assert tasks.get("my_quadratic_task:make").size == 6


def test_files_of_the_same_name_are_told_apart(file, tmp_path):
    tasks.get(f"{file}:make")
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_text(OWN.replace("dimension=2", "dimension=5"))
    assert tasks.get(f"{other}:make").size == 15
    assert tasks.get(f"{file}:make").size == 6


def test_a_file_may_be_named_as_a_module_that_is_in_use(file, tmp_path):
    path = tmp_path / "dataclasses.py"
    path.write_text("from l2l_keras.tasks import Quadratic as make\n")
    assert tasks.get(f"{path}:make").size == 1280
    assert tasks.get(f"{file}:make").size == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "Unknown task. Expected one of cifar_convnet, .*Received: 'mnist'"),
        ("", "Unknown task.*Received: ''"),
        ("{folder}/missing.py:make", "No task at '.*missing.py:make': "),
        ("{file}:missing", "No task at '.*:missing': .*task.py has no 'missing'"),
        ("no_such_module:make", "No task at 'no_such_module:make': No module named"),
        ("{file}:wrong", "must return an l2l_keras.tasks.Task or Mixture. Received: str"),
        ("{file}", "Unknown task.*my_quadratic_task.py'"),
    ],
)
def test_what_is_not_there_is_said(name, message, file):
    with pytest.raises(ValueError, match=message):
        tasks.get(name.format(file=file, folder=file.parent))


def test_options_are_arguments_of_the_task(file):
    assert tasks.get("quadratic", functions=2, dimension=3).size == 6
    assert tasks.get("digits_mlp", layers=(5,)).size == 64 * 5 + 5 + 5 * 10 + 10
    assert tasks.get(f"{file}:make", dimension=4).size == 12


@pytest.mark.parametrize("name", ["quadratic", "mnist_mlp", "{file}:make"])
def test_options_that_a_task_does_not_take_are_refused(name, file):
    with pytest.raises(ValueError, match="does not take these options: .*'unctions'"):
        tasks.get(name.format(file=file), download=False, unctions=2)


def test_an_option_of_a_wrong_value_is_refused():
    with pytest.raises(ValueError, match="`functions` must be positive.*Received: .*functions=0"):
        tasks.get("quadratic", functions=0)


def test_a_mistake_in_ones_own_task_is_not_hidden(file):
    with pytest.raises(ZeroDivisionError, match="a mistake of the user's"):
        tasks.get(f"{file}:broken")


def test_nor_is_one_that_python_finds_on_import(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import math\nmath.no_such_function()\n")
    with pytest.raises(AttributeError, match="no_such_function"):
        tasks.get(f"{path}:make")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
