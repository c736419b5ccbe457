"""Tests of `l2l-reproduce`: its small figures, in this process where nothing is interrupted."""

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import l2l_keras
from l2l_keras import folder_lock, reproduction
from l2l_keras.scripts import _console, evaluate, meta_train, reproduce

SCRIPTS = {"l2l-meta-train": meta_train, "l2l-evaluate": evaluate}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1]),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# Instead of meta-training: a preset for each rule.
GIVEN = {
    **dict.fromkeys(
        ("mnist_mlp", "paper_lstm", "mnist_mlp_activations", "digits_mlp", "neural_art"),
        "digits_mlp",
    ),
    **dict.fromkeys(("lstm", "global_averaging_lstm", "ntm_bfgs"), "quadratic"),
    **dict.fromkeys(("lstm_ill", "global_averaging_lstm_ill", "ntm_bfgs_ill"), "quadratic"),
    **dict.fromkeys(("cifar_convnet", "cifar_convnet_sub"), "cifar_convnet"),
    "all_techniques": "general-fast",
    "mean_loss": "digits_mlp",
}
# Of `update_maps`, whose only stage is then the training of one rule.
OTHERS = [f"--preset={name}={GIVEN[name]}" for name in ("mnist_mlp", "paper_lstm", "digits_mlp")]


def call(script, program, *arguments, stream=None):
    """Runs a command in this process, and returns what it prints."""
    for name in script.FLAGS:
        script.FLAGS[name].unparse()
    script.FLAGS.unparse_flags()
    text = stream or io.StringIO()
    with contextlib.redirect_stdout(text):
        script.main(script.FLAGS([program, *arguments]))
    return text.getvalue()


def make(folder, *arguments):
    return call(reproduce, "l2l-reproduce", "--small", f"--output_dir={folder}", *arguments)


def read_json(path):
    return json.loads(path.read_text())


def contents(folder):
    """Contents of the files of figures, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class InProcess(reproduction.CommandRunner):
    """Runs commands in this process, which is quicker, and records them."""

    commands = ()

    def run(self, command, label=""):
        self.commands = [*self.commands, command]
        self.write(f"$ {shlex.join(command)}", label)
        self.write(call(SCRIPTS[command[0]], *command), label)


class InterruptedOutput(io.StringIO):
    """Ctrl-C when a training has finished the first of two epochs."""

    def write(self, text):
        if "epoch 1/2" in text:
            raise KeyboardInterrupt
        return super().write(text)


class Interrupted(reproduction.CommandRunner):
    """Runs a command in this process until it is interrupted."""

    def run(self, command, label=""):
        with pytest.raises(_console.UserError, match="interrupted; resume with"):
            call(SCRIPTS[command[0]], *command, stream=InterruptedOutput())
        raise KeyboardInterrupt


def test_ctrl_c_ends_the_command_and_its_stage_with_one_line(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "l2l_keras.scripts.reproduce", "--figure=update_maps"]
        + [*OTHERS, "--small", f"--output_dir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # Background jobs of a shell ignore this signal, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("$ "):
            break
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=300)  # Ends when the training has ended, too.
    output = "".join([*lines, rest])
    assert process.returncode == 130
    assert [line for line in stderr.splitlines() if line.startswith("reproduce: ")] == [
        "reproduce: interrupted; continue with: l2l-reproduce --figure=update_maps "
        f"{' '.join(OTHERS)} --small --output_dir={tmp_path}"
    ]
    assert "Traceback" not in output + stderr
    assert "update_maps, stage 1 of 4: trainings/lstm\n$ l2l-meta-train --task=quadr" in output
    assert list(contents(tmp_path)) == [".lock"]


def test_the_same_command_continues_and_then_has_nothing_left_to_run(tmp_path, monkeypatch):
    folder = tmp_path / "figures"
    monkeypatch.setattr(reproduction, "CommandRunner", Interrupted)
    with pytest.raises(_console.Interrupted, match="; continue with: l2l-reproduce .*"):
        make(folder, "--figure=update_maps", *OTHERS)
    monkeypatch.setattr(reproduction, "CommandRunner", InProcess)
    continued = make(folder, "--figure=update_maps", *OTHERS)
    (command,) = [shlex.split(line)[1:] for line in continued.splitlines() if line[:2] == "$ "]
    assert (command[0], command[-1]) == ("l2l-meta-train", "--resume")
    assert "epoch 2/2" in continued
    assert continued.splitlines()[-1] == (
        f"update_maps: wrote update_maps.png, update_maps.csv, update_maps.json in {folder}"
    )
    before = contents(folder)
    again = make(folder, "--figure=update_maps", *OTHERS)
    assert "$ " not in again and again.count("\nexists already") == 4
    assert contents(folder) == before


def reproduce_small(folder, *names):
    """Makes small figures in a folder; returns the commands that were run."""
    runner = InProcess(write=lambda line: None)
    workspace = reproduction.Workspace(folder, GIVEN)
    for name in names:
        figure = reproduction.get(name, small=True)
        reproduction.reproduce(name, figure, workspace, runner, {"made_by": "a test"})
    return runner.commands


@pytest.fixture(
    name="made",
    scope="module",
    params=[
        # Between them, they have final losses, curves and pictures.
        ("mnist_sweep", "neural_art"),
        pytest.param(tuple(reproduction.names()), marks=pytest.mark.slow),
    ],
    ids=["distinct", "all"],
)
def made_fixture(request, tmp_path_factory):
    """A folder with figures, their names, and the commands that were run."""
    folder = tmp_path_factory.mktemp("figures")
    return folder, request.param, reproduce_small(folder, *request.param)


def test_figures_are_made_and_share_their_stages(made):
    folder, names, commands = made
    expected = [f"{name}.{ending}" for name in names for ending in ("csv", "json", "png")]
    assert sorted(contents(folder)) == sorted([*expected, "neural_art_pictures.png"])
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert {command[0] for command in commands} == {"l2l-evaluate"}
    # Some are in several figures.
    figures = [reproduction.get(name, small=True) for name in names]
    stages = {stage.name for figure in figures for stage in figure.evaluations}
    folders = [Path(a).name for c in commands for a in c if a.startswith("--output_dir=")]
    assert sorted(folders) == sorted(stages)
    assert len(read_json(folder / "mnist_sweep.json")["panels"]) == 2


def test_summaries_say_how_figures_were_made(made):
    content = read_json(made[0] / "mnist_sweep.json")
    assert (content["figure"], content["made_by"]) == ("mnist_sweep", "a test")
    rule = content["trainings"]["mnist_mlp"]
    assert (rule["preset"], rule["command"]) == ("digits_mlp", None)
    assert rule["card"]["task"] == "digits_mlp"
    for panel, options in zip(content["panels"], ([], ["--task_option=layers=(40,)"]), strict=True):
        command = shlex.split(panel["command"])
        assert [flag for flag in command if flag.startswith("--task_option")] == options
        rule, _, adam = panel["results"]
        assert (rule["name"], adam["name"]) == ("mnist_mlp", "Adam")
        assert rule["mean_final_loss"] > 0 and rule["ratio_to_best_baseline"] > 0
    assert content["wall_seconds"] > 0
    assert {"l2l_keras", "tensorflow"} <= set(content["versions"])


def test_paintings_differ_where_their_inputs_do(made):
    panels = read_json(made[0] / "neural_art.json")["panels"]
    assert len({panel["results"][0]["mean_final_loss"] for panel in panels}) == len(panels) == 2


@pytest.mark.slow
def test_rules_of_ablations_differ(tmp_path):
    reproduce_small(tmp_path, "ablations")
    results = read_json(tmp_path / "ablations.json")["results"]
    assert [summary["optimizer"] for summary in results] == ["all_techniques", "mean_loss"]
    assert results[0]["ratio"] != results[1]["ratio"]


def test_a_missing_stage_is_made_again(made):
    folder = made[0]
    before = contents(folder)
    (folder / "evaluations" / "mnist-1x40-sigmoid-10" / "results.json").unlink()
    commands = reproduce_small(folder, "mnist_sweep")
    assert [command[0] for command in commands] == ["l2l-evaluate"]
    assert contents(folder)["mnist_sweep.csv"] == before["mnist_sweep.csv"]
    assert contents(folder)["mnist_sweep.png"] == before["mnist_sweep.png"]


def test_shipped_presets_replace_meta_training(tmp_path):
    own = "--preset=paper_lstm=quadratic"  # Instead of the one that is shipped.
    printed = make(tmp_path, "--figure=update_maps", own, "--preset=shipped")
    assert "$ " not in printed
    trainings = read_json(tmp_path / "update_maps.json")["trainings"]
    assert {name: training["preset"] for name, training in trainings.items()} == {
        "lstm": "quadratic",
        "mnist_mlp": "mnist_mlp",
        "paper_lstm": "quadratic",
        "digits_mlp": "digits_mlp",
    }
    assert not any(training["command"] for training in trainings.values())


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        ("", 2, r"Expected --figure=quadratics\|.*\|all. Received: none"),
        (
            "--figure=mnist --preset=lstm=quadratic",
            2,
            "one of mnist_mlp, paper_lstm as NAME. Received: --preset=lstm=quadratic",
        ),
        ("--figure=mnist --preset=quadratic", 2, "Received: --preset=quadratic"),
        ("--figure=mnist --preset=mnist_mlp=nothing", 2, "`preset` must be.*Received: 'nothing'"),
        ("--figure=quadratics --output_dir={folder}/file", 1, "written to. Received: '.*/file'"),
        (
            "--figure=mnist --preset=shipped --nodownload --output_dir={folder}",
            1,
            "Another process works in '{folder}': .*; then continue with: "
            "l2l-reproduce --figure=mnist --preset=shipped --nodownload --output_dir={folder}",
        ),
    ],
)
def test_mistakes(arguments, status, message, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = arguments.format(folder=tmp_path).split()
    message = message.replace("{folder}", str(tmp_path))
    with (
        folder_lock.locked(tmp_path),
        pytest.raises(_console.UserError, match=message) as error,
    ):
        call(reproduce, "l2l-reproduce", *arguments)
    assert error.value.status == status
    assert "\n" not in str(error.value)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
