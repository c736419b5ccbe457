"""Tests of `l2l-evaluate`."""

import csv
import json
import re

import pytest

from l2l_keras import presets
from l2l_keras.evaluation import ALL_BASELINES
from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.scripts import _console, evaluate

SMALL = ("--steps=5", "--seeds=2", "--tuning_seeds=1")
# Without XLA, which takes longer to compile than these few steps to run.
TASK = """
from l2l_keras.tasks import Mixture, Quadratic

def make():
    task = Quadratic(dimension=2, functions=3)
    task.jit_compile = False
    return task

def mixture():
    return Mixture({"seen": make()}, {"first": make(), "second": make()})
"""
TWICE = "Two optimizers must not have the same name. Received: --preset="
FILES = ["curves.csv", "curves.png", "results.json", "table.md", "table.txt"]


def evaluate_here(*arguments):
    """Runs the script in this process."""
    for name in evaluate.FLAGS:
        evaluate.FLAGS[name].unparse()
    evaluate.FLAGS.unparse_flags()
    evaluate.main(evaluate.FLAGS(["l2l-evaluate", *arguments]))


def names_in_table(capsys):
    """Names of the optimizers in the table that was printed."""
    lines = capsys.readouterr().out.splitlines()
    return {re.split("  +", line)[0] for line in lines[2 : lines.index("")]}


@pytest.fixture(name="module")
def module_fixture(tmp_path):
    path = tmp_path / "small_task.py"
    path.write_text(TASK)
    return path


@pytest.fixture(name="task")
def task_fixture(module):
    return f"--task={module}:make"


@pytest.fixture(name="preset")
def preset_fixture(tmp_path):
    path = tmp_path / "my_rule"
    presets.save_preset(CoordinatewiseLSTM(units=(3,), seed=0), path, {"description": "small"})
    return path


def test_a_preset_is_evaluated_and_reported_the_same_every_time(preset, task, tmp_path, capsys):
    def report(folder):
        evaluate_here(f"--preset={preset}", task, "--seed=7", f"--output_dir={folder}", *SMALL)
        content = json.loads((folder / "results.json").read_text())
        timed = {"seconds", "loss_at_equal_time"}
        untimed = [{k: v for k, v in r.items() if k not in timed} for r in content["results"]]
        return content, untimed, (folder / "curves.csv").read_text()

    folder = tmp_path / "report"
    content, *results = report(folder)
    printed = capsys.readouterr()
    assert sorted(path.name for path in folder.iterdir()) == FILES
    names = ["my_rule", *ALL_BASELINES]

    # The table alone is on standard output; progress is on standard error.
    text = (folder / "table.txt").read_text()
    assert printed.out.startswith(text)
    assert "training loss: the last loss" in text  # The losses of quadratics are exact.
    assert "my_rule: test: final loss" in printed.err

    assert [result["name"] for result in content["results"]] == names
    assert content["settings"]["seeds"] == [7, 8]
    assert content["settings"]["tuning_seeds"] == [7]
    recorded = content["settings"]["flags"]
    assert recorded["steps"] == 5
    assert recorded["preset"] == [str(preset)]
    assert "verbosity" not in recorded
    assert content["settings"]["presets"] == {"my_rule": {"description": "small"}}
    assert all(result["runs"] == 2 * 3 for result in content["results"])

    rows = list(csv.DictReader(results[1].splitlines()))
    assert [row["step"] for row in rows if row["optimizer"] == "my_rule"] == list("012345")
    assert report(tmp_path / "again")[1:] == (*results,)


def test_presets_are_shown_by_the_names_given_or_distinguished(preset, task, tmp_path, capsys):
    other = tmp_path / "a=b" / "my_rule"
    presets.save_preset(CoordinatewiseLSTM(units=(3,), seed=1), other, {})
    flags = [f"--preset={text}" for text in (preset, other, f"mine={preset}")]
    evaluate_here(*flags, "--baseline=SGD", "--baseline=Adam", task, *SMALL)
    assert names_in_table(capsys) == {"mine", "my_rule", str(other), "Adam", "SGD"}
    evaluate_here(task, *SMALL)
    assert names_in_table(capsys) == {*ALL_BASELINES}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--preset=nothing", "`preset` must be.*Received: 'nothing'"),
        ("--task=nothing", "Unknown task.*Received: 'nothing'"),
        ("--task={module}:mixture", "On a mixture, name a --preset"),
        ("--task=testbed --baseline=Adam", "The testbed and mixtures have all baselines"),
        ("--task=testbed --task_option=layers=3", "takes multiples, problems.* Received: layers"),
        ("--task=testbed --task_option=problems=('nothing',)", "Unknown problem"),
        ("--task=testbed --task_option=multiples=(2,1)", "must be positive and in increasing"),
        ("--preset=quadratic --preset=quadratic", TWICE),
        ("--preset=a={preset} --preset=a={preset}", TWICE),
        ("--preset=Adam={preset}", TWICE),
        ("--output_dir={module}", "Expected a folder that can be written to"),
        ("--task=mnist_mlp --nodownload --data_dir={preset}", "Data set 'mnist' could not be read"),
    ],
)
def test_a_wrong_flag_is_refused(arguments, message, module, preset):
    with pytest.raises(_console.UserError, match=message) as error:
        evaluate_here(*arguments.format(module=module, preset=preset).split())
    failed = "--output_dir" in arguments or "--data_dir" in arguments
    assert error.type is (_console.UserError if failed else _console.UsageError)


def test_shipped_baselines_of_the_testbed_are_found(tmp_path, capsys):
    cache = tmp_path / "cache"
    problems = "--task_option=problems=('wine_of_many_scales',)"
    evaluate_here("--task=testbed", problems, f"--task_option=cache_dir='{cache}'")
    printed = capsys.readouterr()
    assert "name a --preset to compare" in printed.out
    assert "learning rate" not in printed.err
    assert not cache.exists()


def test_the_validation_tasks_of_a_mixture_are_evaluated(module, preset, tmp_path, capsys):
    folder = tmp_path / "report"
    task, report = f"--task={module}:mixture", f"--output_dir={folder}"
    evaluate_here(task, f"--preset={preset}", report, *SMALL)
    printed = capsys.readouterr()
    assert "2/2 second: SGD: learning rate" in printed.err
    assert "**my_rule, 5 steps**" in printed.out
    content = json.loads((folder / "testbed.json").read_text())
    found = [(score["problem"], score["steps"]) for score in content["scores"]]
    assert found == [("first", 5), ("second", 5)]
    assert content["summaries"][0]["problems"] == 2
    assert content["settings"]["flags"]["steps"] == 5
    assert content["settings"]["presets"] == {"my_rule": {"description": "small"}}


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
