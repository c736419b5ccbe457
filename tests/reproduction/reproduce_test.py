"""Tests of how the stages of a figure are run: in turn or several at a time."""

import threading
from pathlib import Path

import pytest

from l2l_keras import presets
from l2l_keras.reproduction import CommandRunner, Figure, StageError, Workspace, reproduce
from l2l_keras.reproduction.outputs import Output
from l2l_keras.reproduction.stages import Evaluation, Training
from l2l_keras.rules import CoordinatewiseLSTM

RULES = tuple(Training(name, ("--task=quadratic",)) for name in ("first", "second"))
STAGES = tuple(Evaluation(f"panel-{k}", ("first", "second"), (f"--seeds={k}",)) for k in range(4))


class Drawing:
    """A figure that takes no time to draw."""

    def savefig(self, path):
        path.write_bytes(b"picture")


class FakeRunner(CommandRunner):
    """Leaves the files that commands would; `meanwhile` is called with the name of each stage."""

    def __init__(self, jobs=1, meanwhile=lambda name: None):
        self.lines, self.begun = [], []
        self.meanwhile = meanwhile
        super().__init__(jobs, self.lines.append)

    def run(self, command, label=""):
        self.write("at work", label)
        self.begun.append(label)
        self.meanwhile(label)
        (folder,) = (a.partition("=")[2] for a in command if a.startswith("--output_dir="))
        if command[0] == "l2l-meta-train":
            rule = CoordinatewiseLSTM(units=(2,), seed=0)
            presets.save_preset(rule, Path(folder) / "preset", {"wall_seconds": 7})
        else:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / "results.json").write_text("{}")


def make(folder, runner):
    figure = Figure(RULES, STAGES, lambda workspace: Output(Drawing(), [("step",)], {}))
    return reproduce("figure", figure, Workspace(folder), runner, {})


def test_stages_run_in_turn_and_once(tmp_path):
    runner = FakeRunner()
    paths = make(tmp_path, runner)
    assert runner.begun == ["first", "second", *(f"panel-{k}" for k in range(4))]
    assert runner.lines[:2] == ["figure, stage 1 of 6: trainings/first", "at work"]
    assert runner.lines[2].startswith("done in ")
    assert sorted(path.name for path in paths) == ["figure.csv", "figure.json", "figure.png"]
    assert (tmp_path / "figure.png").read_bytes() == b"picture"
    again = FakeRunner()
    make(tmp_path, again)
    assert again.begun == [] and again.lines.count("exists already") == 6


def test_several_run_at_a_time(tmp_path):
    # Each waits for another one: in turn, none would end.
    meeting = threading.Barrier(2)
    runner = FakeRunner(2, lambda name: meeting.wait(timeout=60))
    make(tmp_path, runner)
    # Evaluations begin when all rules exist.
    assert sorted(runner.begun[:2]) == ["first", "second"]
    assert sorted(runner.begun[2:]) == [f"panel-{k}" for k in range(4)]
    assert {"first: at work", "panel-3: at work"} <= set(runner.lines)


@pytest.mark.parametrize("error", [KeyboardInterrupt, StageError])
def test_an_interrupt_or_a_failure_ends_the_other_stages(tmp_path, error):
    stopped, begun = threading.Event(), threading.Barrier(2)

    def meanwhile(name):
        begun.wait(timeout=60)
        if name == "second":
            raise error("why")
        assert stopped.wait(timeout=60)
        raise StageError("l2l-meta-train was ended by SIGINT")

    runner = FakeRunner(2, meanwhile)
    runner.stop = stopped.set
    with pytest.raises(error, match="why"):
        make(tmp_path, runner)
    assert not (tmp_path / "evaluations").exists()
    assert not (tmp_path / "figure.png").exists()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
