"""Tests of stages: what is run, what goes on, and what is there already."""

import dataclasses
import json

import pytest

from l2l_keras import presets
from l2l_keras.reproduction import Evaluation, StageError, Training, Workshop, child
from tests.reproduction.commands import Commands

TRAINING = Training("lstm", ("--task=quadratic", "--epochs=1"), "quadratic")
EVALUATION = Evaluation("near_zero", ("lstm",), ("--task=quadratic", "--seeds=2"))


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture(name="commands")
def commands_fixture(monkeypatch):
    commands = Commands()
    monkeypatch.setattr(child.Children, "run", commands)
    return commands


@pytest.fixture(name="workshop")
def workshop_fixture(tmp_path, commands):
    data, threads = ["--nodownload"], ["--threads=1"]
    with Workshop(tmp_path, data_arguments=data, training_arguments=threads) as workshop:
        yield workshop


def test_stages_are_run_once(workshop, commands, tmp_path):
    assert workshop.run(TRAINING)
    assert workshop.run(EVALUATION)
    assert commands.begun == [
        [
            "l2l-meta-train",
            "--task=quadratic",
            "--epochs=1",
            f"--output_dir={tmp_path}/trainings/lstm",
            "--noevaluate",
            "--threads=1",
        ],
        [
            "l2l-evaluate",
            f"--preset=lstm={tmp_path}/trainings/lstm/preset",
            "--task=quadratic",
            "--seeds=2",
            f"--output_dir={tmp_path}/evaluations/near_zero",
        ],
    ]
    assert not workshop.run(TRAINING)
    assert not workshop.run(EVALUATION)
    assert len(commands.begun) == 2
    assert workshop.seconds(TRAINING) == 7
    assert workshop.seconds(EVALUATION) >= 0
    assert workshop.label("lstm") == "lstm (CoordinatewiseLSTM)"


def test_stages_that_read_data_are_told_where(workshop):
    for stage in (TRAINING, EVALUATION):
        assert "--nodownload" not in workshop.command(stage)
        reading = dataclasses.replace(stage, reads_data=True)
        assert "--nodownload" in workshop.command(reading)


def test_an_interrupted_training_goes_on(workshop, commands):
    commands.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        workshop.run(TRAINING)
    assert not workshop.finished(TRAINING)
    commands.meanwhile = lambda: None
    assert workshop.run(TRAINING)
    first, second = commands.begun
    assert second == [*first, "--resume"]
    assert workshop.finished(TRAINING)


def test_a_training_with_a_backup_is_not_finished(workshop, commands):
    workshop.run(TRAINING)
    (workshop.place(TRAINING) / "backup").mkdir()
    assert not workshop.finished(TRAINING)


def test_a_training_of_other_flags_is_left_alone(workshop, commands):
    workshop.run(TRAINING)
    other = dataclasses.replace(TRAINING, arguments=("--task=quadratic", "--epochs=2"))
    with pytest.raises(StageError, match="trainings/lstm' holds a run of other flags: remove it"):
        workshop.run(other)
    assert len(commands.begun) == 1
    assert workshop.finished(TRAINING)


def test_an_interrupted_evaluation_is_run_again(workshop, commands):
    workshop.run(TRAINING)
    commands.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        workshop.run(EVALUATION)
    commands.meanwhile = lambda: None
    assert workshop.run(EVALUATION)


def test_an_evaluation_is_run_again_with_other_flags_or_another_rule(workshop, commands, tmp_path):
    workshop.run(TRAINING)
    workshop.run(EVALUATION)
    other = dataclasses.replace(EVALUATION, arguments=("--task=quadratic", "--seeds=3"))
    assert not workshop.finished(other)
    # The card of a rule trained anew differs, by its date and wall time at least.
    presets.save_preset(
        workshop.rule("lstm"), tmp_path / "trainings" / "lstm" / "preset", {"wall_seconds": 8}
    )
    assert not workshop.finished(EVALUATION)


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_a_damaged_record_counts_as_none(workshop, commands, damage):
    workshop.run(TRAINING)
    workshop.run(EVALUATION)
    (workshop.place(EVALUATION) / "stage.json").write_text(damage)
    assert not workshop.finished(EVALUATION)
    assert workshop.seconds(EVALUATION) is None


def test_a_given_preset_takes_the_place_of_a_training(tmp_path, commands):
    with Workshop(tmp_path, {"lstm": "quadratic"}) as workshop:
        assert not workshop.run(TRAINING)
        assert workshop.run(EVALUATION)
        (evaluate,) = commands.begun
        assert "--preset=lstm=quadratic" in evaluate
        assert workshop.seconds(TRAINING) == presets.list_presets()["quadratic"]["wall_seconds"]
        record = json.loads((workshop.place(EVALUATION) / "stage.json").read_text())
        assert record["presets"]["lstm"]["name"] == "quadratic"
    # With the rule's own training, it is another evaluation.
    with Workshop(tmp_path) as workshop:
        workshop.run(TRAINING)
        assert not workshop.finished(EVALUATION)


def test_one_process_at_a_time(workshop, tmp_path):
    with (
        pytest.raises(StageError, match=f"Another process works in '{tmp_path}'"),
        Workshop(tmp_path),
    ):
        pass


def test_a_workshop_can_be_used_again(tmp_path):
    for _ in range(2):
        with Workshop(tmp_path):
            pass


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
