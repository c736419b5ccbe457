"""Tests of `l2l-evaluate`."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import l2l_keras
from l2l_keras import presets
from l2l_keras.evaluation import BASELINES, testbed
from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.scripts import _console, evaluate

COMMAND = [sys.executable, "-m", "l2l_keras.scripts.evaluate"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1]),
    "TF_CPP_MIN_LOG_LEVEL": "3",  # Not our lines.
}
SMALL = ("--steps=5", "--seeds=2", "--tuning_seeds=1")
# Without XLA, which takes longer to compile than these few steps to run.
TASK = """
from l2l_keras.tasks import Quadratic

def make():
    task = Quadratic(dimension=2, functions=3)
    task.jit_compile = False
    return task
"""
FILES = ["curves.csv", "curves.png", "results.json", "table.md", "table.txt"]


def evaluate_here(*arguments):
    """Runs the script in this process."""
    for name in evaluate.FLAGS:
        evaluate.FLAGS[name].unparse()
    evaluate.FLAGS.unparse_flags()
    evaluate.main(evaluate.FLAGS(["l2l-evaluate", *arguments]))


def messages(stderr):
    """The script's own lines on standard error; others are TensorFlow's."""
    return [line for line in stderr.splitlines() if line.startswith("evaluate: ")]


def run(*arguments):
    """Runs the script as a command."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=ENVIRONMENT,
    )


@pytest.fixture(name="task")
def task_fixture(tmp_path):
    path = tmp_path / "small_task.py"
    path.write_text(TASK)
    return f"--task={path}:make"


@pytest.fixture(name="preset")
def preset_fixture(tmp_path):
    path = tmp_path / "my_rule"
    presets.save_preset(CoordinatewiseLSTM(units=(3,), seed=0), path, {"description": "small"})
    return path


def test_evaluates_a_preset_and_writes_a_report(preset, tmp_path):
    folder = tmp_path / "report"
    finished = run(f"--preset={preset}", "--seed=7", f"--output_dir={folder}", *SMALL)
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in folder.iterdir()) == FILES
    names = ["my_rule", *BASELINES]

    # The table alone is on standard output; progress is on standard error.
    text = (folder / "table.txt").read_text()
    assert finished.stdout.startswith(text)
    assert sorted(line.split()[0] for line in text.splitlines()[2:7]) == sorted(names)
    assert "my_rule: test: final loss" in finished.stderr
    assert "Traceback" not in finished.stderr

    content = json.loads((folder / "results.json").read_text())
    assert [result["name"] for result in content["results"]] == names
    assert content["settings"]["seeds"] == [7, 8]
    assert content["settings"]["tuning_seeds"] == [7]
    recorded = content["settings"]["flags"]
    assert recorded["steps"] == 5
    assert recorded["preset"] == [str(preset)]
    assert "verbosity" not in recorded
    assert content["settings"]["presets"] == {"my_rule": {"description": "small"}}
    assert all(result["runs"] == 2 * 128 for result in content["results"])

    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["optimizer"] == "my_rule"] == list("012345")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_results(preset, task, tmp_path):
    def results(folder):
        evaluate_here(f"--preset={preset}", task, f"--output_dir={tmp_path / folder}", *SMALL)
        content = json.loads((tmp_path / folder / "results.json").read_text())
        untimed = [{k: v for k, v in r.items() if k != "seconds"} for r in content["results"]]
        return untimed, (tmp_path / folder / "curves.csv").read_text()

    assert results("a") == results("b")


def test_presets_of_the_same_name_are_told_apart(preset, task, tmp_path, capsys):
    other = tmp_path / "other" / "my_rule"
    presets.save_preset(CoordinatewiseLSTM(units=(3,), seed=1), other, {})
    evaluate_here(f"--preset={preset}", f"--preset={other}", task, *SMALL)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:8]]
    assert sorted(names) == sorted(["my_rule", str(other), *BASELINES])


def test_a_preset_is_shown_by_the_name_given(preset, task, capsys):
    evaluate_here(f"--preset=mine={preset}", f"--preset={preset}", task, *SMALL)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:8]]
    assert sorted(names) == sorted(["mine", "my_rule", *BASELINES])


@pytest.mark.parametrize("twice", [["a={0}", "a={0}"], ["quadratic", "quadratic"], ["Adam={0}"]])
def test_two_optimizers_of_one_name_are_a_mistake(twice, preset, task):
    arguments = [f"--preset={text.format(preset)}" for text in twice]
    with pytest.raises(_console.UserError, match="Two optimizers must not have.*Received: --p"):
        evaluate_here(*arguments, task, *SMALL)


def test_some_baselines(task, capsys):
    evaluate_here("--baseline=SGD", "--baseline=Adam", task, *SMALL)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines[2:4]) == ["Adam", "SGD"]
    assert lines[4] == ""


def test_baselines_alone(task, capsys):
    evaluate_here(task, *SMALL)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:6]]
    assert sorted(names) == sorted(BASELINES)


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["--preset=nothing"], "`preset` must be.*Received: 'nothing'", _console.USAGE),
        (["--task=nothing"], "Unknown task.*Received: 'nothing'", _console.USAGE),
        (["--output_dir={file}"], "Expected a folder that can be written to", _console.FAILURE),
        (
            ["--task=mnist_mlp", "--nodownload", "--data_dir={folder}"],
            "Data set 'mnist' could not be read",
            _console.FAILURE,
        ),
    ],
)
def test_what_is_not_there_is_said(arguments, message, status, tmp_path):
    (tmp_path / "file").write_text("")
    places = {"file": tmp_path / "file", "folder": tmp_path}
    with pytest.raises(_console.UserError, match=message) as error:
        evaluate_here(*(argument.format(**places) for argument in arguments))
    assert error.value.status == status


class TestTestbed:
    FLAGS = (
        "--task=testbed",
        "--steps=10",
        "--seeds=2",
        "--task_option=multiples=(1, 2)",
        "--task_option=problems=('wine_of_many_scales',)",
    )

    @pytest.fixture(name="flags")
    def flags_fixture(self, tmp_path):
        cache = tmp_path / "cache"
        with pytest.MonkeyPatch.context() as patch:
            for name, baseline in testbed.TUNED.items():
                coarse = dataclasses.replace(baseline, grid=(0.001, 0.1))
                patch.setitem(testbed.TUNED, name, coarse)
            yield (*self.FLAGS, f"--task_option=cache_dir='{cache}'")

    def test_a_report_is_written(self, flags, tmp_path, capsys):
        evaluate_here(*flags)
        assert "name a --preset to compare" in capsys.readouterr().out
        evaluate_here(*flags, "--preset=mine=quadratic", f"--output_dir={tmp_path / 'report'}")
        printed = capsys.readouterr()
        assert "learning rate" not in printed.err  # Tuned before.
        assert "1/1 wine_of_many_scales: mine: 20 steps: " in printed.err
        assert "**mine, 20 steps**" in printed.out
        content = json.loads((tmp_path / "report" / "testbed.json").read_text())
        assert [score["steps"] for score in content["scores"]] == [10, 20]
        assert content["settings"]["flags"]["steps"] == 10
        assert content["settings"]["presets"]["mine"]["name"] == "quadratic"

    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            ("--baseline=Adam", "The testbed and mixtures have all baselines"),
            ("--task_option=layers=3", "takes multiples, problems and cache_dir. Received: layers"),
            ("--task_option=problems=('nothing',)", "Unknown problem"),
            ("--task_option=multiples=(2, 1)", "must be positive and in increasing order"),
        ],
    )
    def test_mistakes_are_told(self, flag, message):
        with pytest.raises(_console.UserError, match=message) as error:
            evaluate_here(*self.FLAGS, flag)
        assert error.value.status == _console.USAGE


class TestMixture:
    @pytest.fixture(name="task")
    def task_fixture(self, tmp_path):
        path = tmp_path / "my_mixture.py"
        path.write_text(
            f"{TASK}\nfrom l2l_keras.tasks import Mixture\n"
            "def mixture():\n"
            "    return Mixture({'seen': make()}, {'first': make(), 'second': make()})\n"
        )
        return f"--task={path}:mixture"

    def test_the_tasks_for_validation_are_evaluated(self, task, preset, tmp_path, capsys):
        folder = tmp_path / "report"
        evaluate_here(task, f"--preset={preset}", f"--output_dir={folder}", *SMALL)
        printed = capsys.readouterr()
        assert "2/2 second: SGD: learning rate" in printed.err
        assert "**my_rule, 5 steps**" in printed.out
        content = json.loads((folder / "testbed.json").read_text())
        found = [(score["problem"], score["steps"]) for score in content["scores"]]
        assert found == [("first", 5), ("second", 5)]
        assert content["summaries"][0]["problems"] == 2

    def test_a_preset_is_needed(self, task):
        with pytest.raises(_console.UserError, match="On a mixture, name a --preset") as error:
            evaluate_here(task)
        assert error.value.status == _console.USAGE


def test_a_mistake_ends_with_one_line():
    finished = run("--preset=nothing")
    assert finished.returncode == 2
    assert finished.stdout == ""
    (line,) = messages(finished.stderr)
    assert line.startswith("evaluate: `preset` must be")
    assert "Traceback" not in finished.stderr


def test_interrupt_ends_with_one_line():
    process = subprocess.Popen(
        [*COMMAND, "--steps=200", "--tuning_seeds=50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A shell starts background jobs with this signal ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith("Adam: "):
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert messages(stderr) == ["evaluate: interrupted"]
    assert "Traceback" not in stderr


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
