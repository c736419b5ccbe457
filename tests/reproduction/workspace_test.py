"""Tests of workspaces: which commands are run, what is resumed, and what exists already."""

import dataclasses
import json

import pytest

from l2l_keras import presets
from l2l_keras.reproduction import StageError, Workspace
from l2l_keras.reproduction.stages import Evaluation, Training
from l2l_keras.rules import CoordinatewiseLSTM

TRAINING = Training("lstm", ("--task=quadratic", "--epochs=1"), "quadratic")
EVALUATION = Evaluation("near_zero", ("lstm",), ("--task=quadratic", "--seeds=2"))
OTHER_TRAINING = dataclasses.replace(TRAINING, arguments=("--task=quadratic", "--epochs=2"))
OTHER_EVALUATION = dataclasses.replace(EVALUATION, arguments=("--task=quadratic", "--seeds=3"))


@pytest.fixture(name="workspace")
def workspace_fixture(tmp_path):
    return Workspace(tmp_path, {}, ["--nodownload"], ["--threads=1"])


def save(workspace, **card):
    rule = CoordinatewiseLSTM(units=(2,), seed=0)
    presets.save_preset(rule, workspace.path(TRAINING) / "preset", card)


def train(workspace, training=TRAINING):
    """Leaves the files of a finished training."""
    workspace.begin(training)
    (workspace.path(training) / "settings.json").write_text("{}")
    save(workspace, wall_seconds=7)
    workspace.finish(training, 7.5)


def evaluate(workspace, report="results.json"):
    """Leaves the files of a finished evaluation."""
    workspace.begin(EVALUATION)
    workspace.path(EVALUATION).mkdir(parents=True, exist_ok=True)
    (workspace.path(EVALUATION) / report).write_text("{}")
    workspace.finish(EVALUATION, 12.5)


def test_commands_can_be_typed(workspace, tmp_path):
    folder = tmp_path / "trainings" / "lstm"
    save(workspace)
    assert workspace.begin(TRAINING) == [
        *("l2l-meta-train", "--task=quadratic", "--epochs=1", "--nodownload"),
        *(f"--output_dir={folder}", "--noevaluate", "--threads=1"),
    ]
    assert workspace.begin(EVALUATION) == [
        *("l2l-evaluate", f"--preset=lstm={folder}/preset", "--task=quadratic", "--seeds=2"),
        *("--nodownload", f"--output_dir={tmp_path}/evaluations/near_zero"),
    ]


@pytest.mark.parametrize("report", ["results.json", "testbed.json"])
def test_stages_are_finished_once_recorded_with_their_outputs(workspace, report):
    assert not workspace.finished(TRAINING)
    train(workspace)
    assert workspace.finished(TRAINING) and not workspace.finished(EVALUATION)
    evaluate(workspace, report)
    assert workspace.finished(EVALUATION)
    assert workspace.seconds(EVALUATION) == 12.5
    assert workspace.label("lstm") == "lstm (CoordinatewiseLSTM)"
    (workspace.path(EVALUATION) / report).unlink()
    assert not workspace.finished(EVALUATION)


def test_an_interrupted_training_is_resumed_and_one_with_other_flags_left_alone(workspace):
    folder = workspace.path(TRAINING)
    command = workspace.begin(TRAINING)
    (folder / "settings.json").write_text("{}")
    (folder / "backup").mkdir()
    save(workspace)  # The best rule so far.
    assert not workspace.finished(TRAINING)
    assert workspace.begin(TRAINING) == [*command, "--resume"]
    (folder / "backup").rmdir()
    # Finished, even if this process was ended before it could record that.
    assert workspace.finished(TRAINING)
    with pytest.raises(StageError, match="trainings/lstm' holds a run with other flags: remove it"):
        workspace.begin(OTHER_TRAINING)
    assert workspace.finished(TRAINING)


def test_an_evaluation_is_run_again_with_other_flags_or_another_rule(workspace):
    train(workspace)
    evaluate(workspace)
    assert not workspace.finished(OTHER_EVALUATION)
    assert "--resume" not in workspace.begin(EVALUATION)
    assert not workspace.finished(EVALUATION)  # It was interrupted.
    evaluate(workspace)
    # The card of a rule that was trained again differs at least in its date and wall time.
    save(workspace, wall_seconds=8)
    assert not workspace.finished(EVALUATION)


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_a_damaged_record_counts_as_none(workspace, damage):
    train(workspace)
    evaluate(workspace)
    (workspace.path(EVALUATION) / "stage.json").write_text(damage)
    assert not workspace.finished(EVALUATION)
    assert not workspace.seconds(EVALUATION)


def test_a_given_preset_replaces_a_training(workspace, tmp_path):
    given = Workspace(tmp_path, {"lstm": "quadratic"})
    assert given.finished(TRAINING)
    assert "--preset=lstm=quadratic" in given.command(EVALUATION)
    evaluate(given)
    record = json.loads((given.path(EVALUATION) / "stage.json").read_text())
    assert record["presets"]["lstm"]["name"] == "quadratic"
    train(workspace)
    assert given.finished(EVALUATION) and not workspace.finished(EVALUATION)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
