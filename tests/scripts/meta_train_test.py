"""Tests of `l2l-meta-train`."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import l2l_keras
from l2l_keras import presets
from l2l_keras.evaluation import ALL_BASELINES
from l2l_keras.scripts import meta_train
from l2l_keras.studies import Recipe

COMMAND = [sys.executable, "-m", "l2l_keras.scripts.meta_train"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1])}
SMALL = (
    "--rule_option=units=(3,)",
    "--horizon=10",
    "--unroll=5",
    "--validation_episodes=2",
    "--seeds=2",
)
# Small quadratics, without XLA, which takes longer to compile than these few steps to run. Ctrl-C
# comes when an optimizee is drawn that INTERRUPT_AT names.
TASK = """
import os
import re
import signal

from l2l_keras.tasks import Mixture, Quadratic


class Small(Quadratic):
    jit_compile = False

    def sample(self, split, seed):
        if os.environ.get("INTERRUPT_AT") == f"{split}:{seed}":
            os.kill(os.getpid(), signal.SIGINT)
        return super().sample(split, seed)


def make(functions=3):
    return Small(3, functions)


def several():
    return Mixture({"a": Small(2, 1), "b": Small(3, 1)}, {"c": Small(4, 1)}, name="several")


def diverging():
    task = make()
    task.loss_and_gradient = lambda parameters, state, batch: (
        float("nan") * parameters[:3], parameters, state
    )
    return task
"""


def reset_flags():
    for name in meta_train.FLAGS:
        meta_train.FLAGS[name].unparse()
    meta_train.FLAGS.unparse_flags()


def train_here(*arguments):
    """Runs the script in this process."""
    reset_flags()
    meta_train.main(meta_train.FLAGS(["l2l-meta-train", *arguments]))


def run(*arguments, **environment):
    """Runs the script as a command."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**ENVIRONMENT, **environment},
        # A shell starts background jobs with this signal ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def messages(stderr, name="meta_train"):
    """The script's own lines on standard error; others are TensorFlow's."""
    return [line for line in stderr.splitlines() if line.startswith(f"{name}: ")]


def weights(folder):
    return presets.load_preset(folder / "preset")[0].get_weights()


def card(folder):
    """The entries of the card that do not depend on the time and the process."""
    content = json.loads((folder / "preset" / "card.json").read_text())
    for name in ("wall_seconds", "peak_memory_mb", "date"):
        del content[name]
    return content


@pytest.fixture(name="task", scope="module")
def task_fixture(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "small_task.py"
    path.write_text(TASK)
    return f"--task={path}:make"


@pytest.fixture(name="finished", scope="module")
def finished_fixture(task, tmp_path_factory):
    """A whole run: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "new" / "run"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        train_here(
            task,
            "--task_option=functions=2",
            "--epochs=2",
            "--episodes=2",
            "--seed=3",
            "--description=a small rule",
            f"--output_dir={folder}",
            *SMALL,
        )
    return folder, out.getvalue()


class TestRun:
    def test_all_files_are_written(self, finished):
        folder, _ = finished
        assert sorted(path.name for path in folder.iterdir()) == [
            "curves.csv",
            "curves.png",
            "history.csv",
            "preset",
            "results.json",
            "settings.json",
            "table.md",
            "table.txt",
            "tensorboard",
        ]
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert list(folder.glob("tensorboard/*/events.*"))

    def test_it_prints_progress_the_table_and_where_files_are(self, finished):
        folder, out = finished
        lines = out.splitlines()
        assert lines[0] == (
            "Meta-training CoordinatewiseLSTM (76 weights) on quadratic (6 parameters): "
            "2 epochs of 2 episodes of 10 steps"
        )
        assert lines[1].startswith("epoch 1/2  meta-loss ")
        assert lines[2].startswith("epoch 2/2  meta-loss ")
        assert lines[2].endswith(" 0 s left")
        assert (folder / "table.txt").read_text() in out
        assert lines[-2:] == [f"The rule:   {folder / 'preset'}", f"All files:  {folder}"]

    def test_the_card_says_how_the_rule_was_made(self, finished):
        folder, _ = finished
        content = json.loads((folder / "preset" / "card.json").read_text())
        assert content["description"] == "a small rule"
        assert content["task"] == "quadratic"
        assert (content["horizon"], content["seed"], content["windows_skipped"]) == (10, 3, 0)
        assert {"tensorflow", "keras", "l2l_keras"} <= set(content["versions"])
        (results,) = content["results"].values()
        assert set(results) == {"learned", *ALL_BASELINES}
        optimizer = l2l_keras.LearnedOptimizer.from_preset(folder / "preset")
        assert optimizer.rule.units == (3,)
        # The command gives the same flags again.
        command, *arguments = shlex.split(content["command"])
        assert command == "l2l-meta-train"
        assert "--task_option=functions=2" in arguments
        assert "--description=a small rule" in arguments
        settings = json.loads((folder / "settings.json").read_text())
        reset_flags()
        meta_train.FLAGS(["l2l-meta-train", *arguments])
        assert {name: meta_train.FLAGS[name].value for name in settings} == settings

    def test_all_flags_that_make_a_rule_are_kept(self, finished):
        folder, _ = finished
        settings = json.loads((folder / "settings.json").read_text())
        of_files = {"data_dir", "download", "output_dir", "resume"}
        of_reports = {"evaluate", "seeds", "description"}
        of_the_machine = {
            "cache_mb",
            "threads",
            "minutes",
        }  # Its speed gives the epochs that are kept.
        own = meta_train.FLAGS.flags_by_module_dict().values()
        others = {flag.name for group in own for flag in group} - set(settings)
        assert others == {*of_files, *of_reports, *of_the_machine}

    def test_the_history_and_the_comparison_are_recorded(self, finished):
        folder, _ = finished
        with (folder / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["0", "1"]
        assert set(rows[0]) == {"epoch", "loss", "skipped", "val_final_loss", "val_loss"}
        best = min(float(row["val_final_loss"]) for row in rows)
        assert card(folder)["validation_final_loss"] == pytest.approx(best, rel=1e-6)

        content = json.loads((folder / "results.json").read_text())
        assert [result["name"] for result in content["results"]] == ["learned", *ALL_BASELINES]
        assert content["settings"]["steps"] == 10
        assert content["settings"]["flags"]["task_option"] == ["functions=2"]
        assert all(result["runs"] == 2 * 2 for result in content["results"])

    def test_a_preset_can_be_trained_further(self, finished, task, tmp_path):
        folder, _ = finished
        flags = ("--epochs=1", "--episodes=1", "--noevaluate", "--horizon=10", "--unroll=5")
        train_here(task, f"--rule={folder / 'preset'}", f"--output_dir={tmp_path / 'more'}", *flags)
        trained_from = card(tmp_path / "more")["trained_from"]
        assert trained_from["description"] == "a small rule"
        moved = [
            np.abs(a - b).max()
            for a, b in zip(weights(tmp_path / "more"), weights(folder), strict=True)
        ]
        # Two steps of Adam, at rates of at most 3e-3.
        assert 0 < max(moved) < 1e-2

    def test_a_preset_is_specialised_unless_flags_say_how(self, finished, task, tmp_path):
        start = f"--rule={finished[0] / 'preset'}"
        flags = ("--minutes=1e-6", "--horizon=10", "--episodes=2", "--noevaluate")
        train_here(task, start, f"--output_dir={tmp_path}", *flags)
        settings = json.loads((tmp_path / "settings.json").read_text())
        # The task holds nothing out, and 10 steps are one window.
        expected = Recipe(unroll=10, meta_loss_on="training", episodes=2)._asdict()
        assert {name: settings[name] for name in expected} == expected
        assert settings["epochs"] == 1
        assert card(tmp_path)["schedule"] == "cosine"
        assert "--pes_pairs=4 --pes_reuse_noise" in card(tmp_path)["command"]
        assert any(
            np.any(a != b) for a, b in zip(weights(tmp_path), weights(finished[0]), strict=True)
        )

    def test_a_rule_that_never_had_a_finite_loss_is_not_saved(self, task, tmp_path):
        flags = ("--epochs=1", "--episodes=1", f"--output_dir={tmp_path}")
        with pytest.raises(
            meta_train._console.UserError, match="No validation loss was finite, and 2 of 2 windows"
        ):
            train_here(task.replace(":make", ":diverging"), *flags, *SMALL)
        assert not (tmp_path / "preset").exists()


class TestGroups:
    FLAGS = (
        "--task=digits_mlp",
        "--task_option=layers=(2,)",
        "--task_option=batch_size=8",
        "--group=bias",
        "--group=.*",
        "--rule_option=units=(2,)",
        "--rule_option=preprocessing=none",
        "--epochs=1",
        "--episodes=1",
        "--horizon=4",
        "--unroll=2",
        "--validation_episodes=1",
        "--noevaluate",
    )

    def test_each_has_a_rule_of_its_own(self, tmp_path, capsys):
        train_here(*self.FLAGS, f"--output_dir={tmp_path / 'run'}")
        assert capsys.readouterr().out.startswith(
            "Meta-training CoordinatewiseLSTM (35 weights) for 'bias' and CoordinatewiseLSTM "
            "(35 weights) for '.*' on digits_mlp (160 parameters): 1 epochs of 1 episodes"
        )
        rules, content = presets.load_preset(tmp_path / "run" / "preset")
        assert list(rules) == ["bias", ".*"]
        # They started alike, and have learned other things.
        for a, b in zip(*(rule.get_weights() for rule in rules.values()), strict=True):
            assert np.any(a != b)
        assert shlex.split(content["command"]).count("--group=bias") == 1
        assert "for 'bias' and CoordinatewiseLSTM" in content["description"]
        optimizer = l2l_keras.LearnedOptimizer.from_preset(tmp_path / "run" / "preset")
        assert list(optimizer.rule) == ["bias", ".*"]


class TestMixture:
    def test_a_rule_is_trained_on_tasks_side_by_side(self, task, tmp_path, capsys):
        file = task.rpartition(":")[0]
        train_here(
            f"{file}:several",
            "--rule=tensorwise_lstm",
            "--rule_option=units=4",
            "--rule_option=momenta=((0.9,0.99),)",
            "--epochs=1",
            "--episodes=4",
            "--horizon=4",
            "--longest_horizon=8",
            "--unroll=2",
            "--parallel=2",
            "--optimizees=2",
            "--random_scale=0.5",
            "--random_scale_of=tensor",
            "--window_clip=0.1",
            "--staggered",
            "--meta_loss=log_window",
            "--curriculum=4,8",
            "--validation_episodes=1",
            f"--output_dir={tmp_path / 'run'}",
        )
        out = capsys.readouterr().out
        assert "on several (2 tasks of up to 3 parameters): 1 epochs of 4 episodes of 4 to 8" in out
        assert f"l2l-evaluate --preset={tmp_path / 'run' / 'preset'} --task=testbed" in out
        content = card(tmp_path / "run")
        assert (content["task"], content["horizon"]) == ("several", 8)
        for flag in (
            "--curriculum=4,8",
            "--parallel=2",
            "--longest_horizon=8",
            "--random_scale_of=tensor",
        ):
            assert flag in shlex.split(content["command"])
        optimizer = l2l_keras.LearnedOptimizer.from_preset(tmp_path / "run" / "preset")
        assert optimizer.rule.momenta == ((0.9, 0.99),)


class TestResume:
    FLAGS = ("--epochs=4", "--episodes=3", "--random_scale=0.5", "--ema_momentum=0.9", *SMALL)

    def test_an_interrupted_run_goes_on_to_the_same_rule(self, task, tmp_path):
        folder = tmp_path / "run"
        # The eighth optimizee comes in the middle of the third of four epochs.
        interrupted = run(
            task, f"--output_dir={folder}", "--noevaluate", *self.FLAGS, INTERRUPT_AT="train:7"
        )
        assert interrupted.returncode == 130
        assert "epoch 2/4" in interrupted.stdout
        assert "epoch 3/4" not in interrupted.stdout
        (line,) = messages(interrupted.stderr)
        start, _, command = line.partition("resume with: l2l-meta-train ")
        assert start == "meta_train: interrupted; "
        assert "Traceback" not in interrupted.stderr
        assert not (folder / "preset").exists()

        # As the message says.
        train_here(*shlex.split(command), "--noevaluate")
        assert not (folder / "backup").exists()
        other = tmp_path / "other"
        train_here(task, f"--output_dir={other}", "--noevaluate", *self.FLAGS)
        for a, b in zip(weights(folder), weights(other), strict=True):
            np.testing.assert_array_equal(a, b)
        assert (folder / "history.csv").read_text() == (other / "history.csv").read_text()
        assert card(folder) == card(other)

    @pytest.mark.slow
    def test_a_run_interrupted_in_its_comparison_compares_again(self, task, tmp_path, monkeypatch):
        folder = tmp_path / "run"
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        monkeypatch.setenv("INTERRUPT_AT", "test:0")
        try:
            with pytest.raises(KeyboardInterrupt):
                train_here(task, f"--output_dir={folder}", *self.FLAGS)
        finally:
            signal.signal(signal.SIGINT, handler)
        before = weights(folder)
        history = (folder / "history.csv").read_text()
        assert not (folder / "results.json").exists()

        monkeypatch.delenv("INTERRUPT_AT")
        train_here("--resume", f"--output_dir={folder}", "--seeds=2")
        assert (folder / "results.json").exists()
        assert not (folder / "backup").exists()
        assert (folder / "history.csv").read_text() == history
        for a, b in zip(weights(folder), before, strict=True):
            np.testing.assert_array_equal(a, b)


# Arguments, exit status and a pattern of the message; {…} are paths that the fixture below makes.
MISTAKES = [
    ("--epochs=many", 2, "flag --epochs=many: "),
    ("--ema_momentum=1", 2, "flag --ema_momentum=1: "),
    ("--seed=99999999999", 2, "flag --seed=99999999999: "),
    ("--task=nothing {new}", 2, "Unknown task.*Received: 'nothing'"),
    ("--task=digit_mlp {new}", 2, r"Received: 'digit_mlp' \(did you mean 'digits_mlp'\?\)"),
    ("{task} --rule=nothing {new}", 2, r"momentum_lstm,.* general,.*Received: 'nothing'$"),
    ("{task} --rule=momentum-lstm {new}", 2, r"-lstm' \(did you mean 'momentum_lstm'\?\)"),
    ("{task} --rule=general-fats {new}", 2, r"-fats' \(did you mean 'general-fast'\?\)"),
    ("{task} --rule_option=units=(3,0) {new}", 2, r"`units` must .*\(3, 0\)"),
    ("{task} --rule_option=unit=3 {new}", 2, "--rule_option: .*unit"),
    (
        "{task} --rule=quadratic --group=.* {new}",
        2,
        "no options or groups left to choose. Received: --rule=quadratic and --rule_option or",
    ),
    (
        "--task=digits_mlp --group=kernel {new}",
        2,
        r"must match one of the patterns \['kernel'\].*bias', which matches none",
    ),
    (
        "--task=digits_mlp --group=( {new}",
        2,
        r"must be a regular expression.*Received: '\(' \(missing \)",
    ),
    ("{task} --minutes=1 --epochs=2 {new}", 2, "--minutes sets --epochs"),
    ("{task} --unroll=30 {new}", 2, "horizon=100, unroll=30"),
    (
        "{task} --pes_pairs=1 --second_derivatives {new}",
        2,
        "Expected one of .*Received: --second_derivatives and --pes_pairs",
    ),
    ("{task} --pes_reuse_noise {new}", 2, "needs --pes_pairs"),
    ("{task} --clip_through_time {new}", 2, "`second_derivatives`"),
    ("{task} --curriculum=3,x {new}", 2, "--curriculum: .*'x'"),
    ("{task} --task_option=functions {new}", 2, "=name=value. Received: .*functions"),
    ("{task} --task_option=f=1 {new}", 2, "does not take these.*'f'"),
    ("{task} --task_option=functions=0 {new}", 1, "small_task.py:make: ValueError: .*functions=0"),
    ("--task=digits_mlp --task_option=layers=40 {new}", 2, "layers.*Received: 40"),
    ("{task} --output_dir={file}", 1, "folder that can be written to"),
    ("{task} --output_dir={finished}", 1, "holds a run already.*--resume"),
    ("--resume", 2, "--resume needs --output_dir"),
    ("--resume {new}", 1, "No run to resume in '{folder}/new'"),
    ("--resume --output_dir={finished}", 1, "is finished"),
    ("--resume --output_dir={older}", 1, "begun by another version"),
    (
        "--resume --output_dir={started} --seed=4",
        2,
        "keeps its flags. Expected --seed=3. Received: --seed=4",
    ),
]


@pytest.fixture(name="paths", scope="module")
def paths_fixture(finished, task, tmp_path_factory):
    """The paths that mistakes name."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "file").write_text("")
    for name, settings in (
        ("started", (finished[0] / "settings.json").read_text()),
        ("older", '{"seed": 0}'),
    ):
        (folder / name).mkdir()
        (folder / name / "settings.json").write_text(settings)
    names = ("file", "started", "older")
    return {
        "task": task,
        "folder": folder,
        **{name: folder / name for name in names},
        "finished": finished[0],
        "new": f"--output_dir={folder / 'new'}",
    }


def run_console(monkeypatch, capsys, *arguments):
    """The exit status of the command, its output and its own lines on standard error."""
    reset_flags()
    monkeypatch.setattr(sys, "argv", ["l2l-meta-train", *arguments])
    with pytest.raises(SystemExit) as stop:
        meta_train.console()
    out, error = capsys.readouterr()
    return stop.value.code, out, messages(error, "l2l-meta-train")


@pytest.mark.parametrize(("arguments", "status", "message"), MISTAKES)
def test_a_mistake_ends_with_one_line_and_a_status(
    arguments, status, message, paths, monkeypatch, capsys
):
    arguments = [argument.format(**paths) for argument in arguments.split()]
    code, out, (line,) = run_console(monkeypatch, capsys, *arguments)
    assert (code, out) == (status, "")
    assert re.search(message.replace("{folder}", str(paths["folder"])), line)
    assert not (paths["folder"] / "new" / "settings.json").exists()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
