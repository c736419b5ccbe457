"""Tests of `l2l-reproduce`: small variants of its figures, as real processes."""

import contextlib
import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import l2l_keras
from l2l_keras import presets, reproduction
from l2l_keras.scripts import _console, meta_train, reproduce

COMMAND = [sys.executable, "-m", "l2l_keras.scripts.reproduce"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1]),
    "TF_CPP_MIN_LOG_LEVEL": "3",  # Not our lines.
}
# Instead of meta-training, which the tests of quadratics show.
GIVEN = [
    *(
        f"--preset={name}=digits_mlp"
        for name in ("mnist_mlp", "paper_lstm", "mnist_mlp_activations", "digits_mlp", "neural_art")
    ),
    "--preset=cifar_convnet=cifar_convnet",
    "--preset=cifar_convnet_sub=cifar_convnet",
    "--preset=all_techniques=general-fast",
    "--preset=mean_loss=digits_mlp",
]
# All rules of `quadratics` but the first.
OTHERS = [
    f"--preset={name}=quadratic"
    for name in (
        "global_averaging_lstm",
        "ntm_bfgs",
        "lstm_ill",
        "global_averaging_lstm_ill",
        "ntm_bfgs_ill",
    )
]


def call(script, program, arguments):
    """Runs a script in this process, and returns what it prints."""
    for name in script.FLAGS:
        script.FLAGS[name].unparse()
    script.FLAGS.unparse_flags()
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        script.main(script.FLAGS([program, *arguments]))
    return text.getvalue()


def make(folder, *arguments):
    """Makes small figures in this process, and returns what is printed."""
    return call(reproduce, "l2l-reproduce", ["--small", f"--output_dir={folder}", *arguments])


def messages(stderr):
    """The script's own lines on standard error; others are TensorFlow's."""
    return [line for line in stderr.splitlines() if line.startswith("reproduce: ")]


def contents(folder):
    """Contents of the files of figures, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory):
    return tmp_path_factory.mktemp("figures") / "small"


@pytest.fixture(name="interrupted", scope="module")
def interrupted_fixture(folder):
    """The process that makes `quadratics`, interrupted after one of two epochs of training.

    Only this process is: it must end the one that trains.
    """
    process = subprocess.Popen(
        [*COMMAND, "--figure=quadratics", *OTHERS, "--small", f"--output_dir={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A shell starts background jobs with this signal ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch 1/2"):
            break
    # It has 5 seconds to end by itself, and would be through: it stands still so long.
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    (training,) = (int(child) for t in threads for child in (t / "children").read_text().split())
    os.kill(training, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(6.0)
    os.kill(training, signal.SIGCONT)
    rest, stderr = process.communicate(timeout=120)
    return process.returncode, "".join([*lines, rest]), stderr, sorted(contents(folder))


@pytest.fixture(name="made", scope="module")
def made_fixture(folder, interrupted):
    """What is printed when the interrupted command is given again."""
    return make(folder, "--figure=quadratics", *OTHERS)


class TestQuadratics:
    def test_an_interrupt_ends_with_one_line_that_says_how_to_go_on(self, interrupted, folder):
        status, output, stderr, files = interrupted
        assert status == 130
        assert messages(stderr) == [
            "reproduce: interrupted; go on with: "
            f"l2l-reproduce --figure=quadratics {' '.join(OTHERS)} --small --output_dir={folder}"
        ]
        assert "Traceback" not in output + stderr
        assert "quadratics, stage 1 of 9: trainings/lstm\n$ l2l-meta-train --task=quadr" in output
        assert files == [".lock"]

    def test_the_same_command_goes_on(self, made, folder):
        commands = [shlex.split(line) for line in made.splitlines() if line.startswith("$ ")]
        assert [command[1] for command in commands] == ["l2l-meta-train", *["l2l-evaluate"] * 3]
        assert "--resume" in commands[0]
        # From the first epoch, if the interrupt came before its backup was written.
        assert "epoch 2/2" in made
        assert made.splitlines()[-1] == (
            f"quadratics: wrote quadratics.png, quadratics.csv, quadratics.json in {folder}"
        )

    def test_it_comes_to_what_an_uninterrupted_run_comes_to(self, made, folder, tmp_path):
        command = json.loads((folder / "quadratics.json").read_text())["trainings"]["lstm"][
            "command"
        ]
        program, *arguments = shlex.split(command)
        call(meta_train, program, [*arguments, f"--output_dir={tmp_path}"])
        own, other = (
            presets.load_preset(place / "preset")[0].get_weights()
            for place in (tmp_path, folder / "trainings" / "lstm")
        )
        for a, b in zip(own, other, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_table_holds_all_curves(self, made, folder):
        with (folder / "quadratics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["panel", "optimizer", "step", "mean", "half_width"]
        assert len({row["panel"] for row in rows}) == 3
        assert [row["step"] for row in rows] == [str(step) for step in range(11)] * 12
        assert {row["optimizer"] for row in rows} == {
            *("Adam", "lstm", "global_averaging_lstm", "ntm_bfgs"),
            *("lstm_ill", "global_averaging_lstm_ill", "ntm_bfgs_ill"),
        }

    def test_the_summary_says_how_it_was_made(self, made, folder):
        content = json.loads((folder / "quadratics.json").read_text())
        assert content["figure"] == "quadratics"
        assert content["small"] is True
        assert content["made_by"].startswith("l2l-reproduce --figure=quadratics --preset=")
        assert content["trainings"]["lstm"]["card"]["task"] == "quadratic"
        options = ("initial_scale=0.01", "initial_scale=1.0", "condition=1000.0")
        for panel, option in zip(content["panels"], options, strict=True):
            assert f"--task_option={option}" in shlex.split(panel["command"])
            lstm, _, _, adam = panel["results"]
            assert lstm["name"].startswith("lstm") and adam["name"] == "Adam"
            assert lstm["mean_final_loss"] == pytest.approx(
                lstm["ratio_to_best_baseline"] * adam["mean_final_loss"]
            )
        assert content["wall_seconds"] > 0
        assert {"l2l_keras", "tensorflow"} <= set(content["versions"])

    def test_the_picture_is_there(self, made, folder):
        assert (folder / "quadratics.png").read_bytes().startswith(b"\x89PNG")

    def test_nothing_is_run_twice(self, made, folder):
        before = contents(folder)
        again = make(folder, "--figure=quadratics", *OTHERS)
        assert "$ " not in again
        assert again.count("\nis there: ") == 9
        assert contents(folder) == before

    def test_a_stage_that_is_missing_is_made_again(self, made, folder):
        before = contents(folder)
        (folder / "evaluations" / "quadratics-1.0" / "results.json").unlink()
        again = make(folder, "--figure=quadratics", *OTHERS)
        assert again.count("$ l2l-evaluate") == again.count("$ ") == 1
        assert contents(folder)["quadratics.csv"] == before["quadratics.csv"]
        assert contents(folder)["quadratics.png"] == before["quadratics.png"]


class TestOthers:
    def test_update_maps_of_presets_need_no_other_process(self, tmp_path):
        # The figures' own rules, but for one that is not shipped.
        printed = make(
            tmp_path, "--figure=update_maps", "--preset=paper_lstm=quadratic", "--preset=shipped"
        )
        assert "$ " not in printed
        content = json.loads((tmp_path / "update_maps.json").read_text())
        given = {name: training["preset"] for name, training in content["trainings"].items()}
        assert given == {
            "lstm": "quadratic",
            "mnist_mlp": "mnist_mlp",
            "paper_lstm": "quadratic",
            "digits_mlp": "digits_mlp",
        }
        assert not any(training["command"] for training in content["trainings"].values())
        with (tmp_path / "update_maps.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len({row["rule"] for row in rows}) == 4
        assert (tmp_path / "update_maps.png").read_bytes().startswith(b"\x89PNG")

    def test_all_figures_share_their_stages(self, made, folder):
        printed = make(folder, "--figure=all", "--jobs=2", *GIVEN, *OTHERS)
        names = reproduction.names()
        # With several jobs, lines of the stages, which write reports, name the stage.
        reports = (": wrote table", ": wrote testbed")
        figures = [
            line for line in printed.splitlines() if not any(report in line for report in reports)
        ]
        assert "\n".join(figures).count(": wrote ") == len(names)
        expected = [f"{name}.{ending}" for name in names for ending in ("csv", "json", "png")]
        assert sorted(contents(folder)) == sorted([*expected, "neural_art_pictures.png", ".lock"])
        # Networks of 20 and 40 units and of two layers are in two figures each.
        assert printed.count("$ l2l-evaluate") == printed.count("$ ") == 6 + 4 + 3 + 1
        sweep = json.loads((folder / "mnist_sweep.json").read_text())["panels"]
        assert len(sweep) == 4
        transfer = json.loads((folder / "mnist_transfer.json").read_text())["panels"]
        assert sweep[1]["command"] == transfer[0]["command"]
        # Both were trained in the same way, but are others here.
        techniques = json.loads((folder / "ablations.json").read_text())["results"]
        assert [summary["optimizer"] for summary in techniques] == ["all_techniques", "mean_loss"]
        assert techniques[0]["ratio"] != techniques[1]["ratio"]
        # What is painted differs, and so must its losses.
        art = json.loads((folder / "neural_art.json").read_text())["panels"]
        assert len({panel["results"][0]["mean_final_loss"] for panel in art}) == 3


@pytest.mark.parametrize(
    "arguments, message, status",
    [
        ([], r"Expected --figure=quadratics\|.*\|all. Received: none", _console.USAGE),
        (
            ["--figure=mnist", "--preset=lstm=quadratic"],
            "one of mnist_mlp, paper_lstm as NAME. Received: --preset=lstm=quadratic",
            _console.USAGE,
        ),
        (["--figure=mnist", "--preset=quadratic"], "Received: --preset=quadratic", _console.USAGE),
        (
            ["--figure=mnist", "--preset=mnist_mlp=nothing"],
            "`preset` must be.*Received: 'nothing'",
            _console.USAGE,
        ),
        (
            ["--figure=quadratics", "--output_dir={folder}/file"],
            "Expected a folder that can be written to. Received: '{folder}/file'",
            _console.FAILURE,
        ),
        (
            [
                *["--figure=mnist", "--preset=mnist_mlp=digits_mlp", "--output_dir={folder}/new"],
                *["--preset=paper_lstm=digits_mlp", "--data_dir={folder}", "--nodownload"],
            ],
            "l2l-evaluate: Data set 'mnist' could not be read from {folder}.*; once that is put "
            "right, go on with: l2l-reproduce --figure=mnist --preset=mnist_mlp=digits_mlp ",
            _console.FAILURE,
        ),
    ],
)
def test_mistakes(arguments, message, status, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(_console.UserError, match=message.replace("{folder}", str(tmp_path))) as e:
        call(reproduce, "l2l-reproduce", [text.format(folder=tmp_path) for text in arguments])
    assert e.value.status == status
    assert "\n" not in str(e.value)
    assert not list(tmp_path.glob("new/mnist*"))  # No half of a figure.


def test_an_unknown_figure_ends_with_one_line():
    finished = subprocess.run(
        [*COMMAND, "--figure=nothing"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=ENVIRONMENT,
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    (line,) = messages(finished.stderr)
    assert line.startswith("reproduce: flag --figure=nothing: value should be one of <quadratics|")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
