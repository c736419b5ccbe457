"""Tests of how the stages of a figure are run: one by one or several at a time."""

import threading

import pytest

from l2l_keras import reproduction
from l2l_keras.reproduction import Evaluation, Figure, StageError, Training, Workshop, child
from l2l_keras.reproduction.outputs import Output
from tests.reproduction.commands import Commands

RULES = tuple(Training(name, ("--task=quadratic",)) for name in ("first", "second"))
STAGES = tuple(Evaluation(f"panel-{k}", ("first", "second"), (f"--seeds={k}",)) for k in range(4))


class Drawing:
    """A figure that takes no time to draw."""

    def savefig(self, image, format):
        image.write(b"picture")


def make(folder, monkeypatch, jobs, commands):
    """Makes a figure of two rules and four comparisons, and returns the lines shown."""
    monkeypatch.setattr(child.Children, "run", commands)
    figure = Figure(RULES, STAGES, lambda workshop: Output(Drawing(), [("step",)], {}))
    lines = []
    with Workshop(folder, write=lines.append, jobs=jobs) as workshop:
        reproduction.reproduce("figure", figure, workshop, {})
    return lines


def names(commands):
    """Returns the names of the stages that commands were run for."""
    return [
        argument.rpartition("/")[2]
        for command in commands.begun
        for argument in command
        if argument.startswith("--output_dir=")
    ]


def test_stages_run_in_turn_by_default(tmp_path, monkeypatch):
    commands = Commands()
    lines = make(tmp_path, monkeypatch, 1, commands)
    assert names(commands) == ["first", "second", *(f"panel-{k}" for k in range(4))]
    assert lines[:2] == ["figure, stage 1 of 6: trainings/first", "at work"]
    assert "left" not in lines[2] and lines[-1].endswith(", about 0 s left")
    assert (tmp_path / "figure.png").read_bytes() == b"picture"


def test_several_run_at_a_time(tmp_path, monkeypatch):
    # Each waits for another one: in turn, none would come to its end.
    meeting = threading.Barrier(2)
    commands = Commands(meanwhile=lambda: meeting.wait(timeout=60))
    lines = make(tmp_path, monkeypatch, 2, commands)
    # Comparisons begin when all rules are there.
    assert sorted(names(commands)[:2]) == ["first", "second"]
    assert sorted(names(commands)[2:]) == [f"panel-{k}" for k in range(4)]
    assert {"first: at work", "panel-3: at work"} <= set(lines)
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, StageError])
def test_if_one_is_interrupted_or_fails_the_others_are_ended(tmp_path, monkeypatch, error):
    ended = threading.Event()
    begun = threading.Barrier(2)

    def run(self, command, arguments, write, keep_open):
        begun.wait(timeout=60)
        if "second" in arguments[1]:
            raise error("why")
        assert ended.wait(timeout=60)
        raise StageError("l2l-meta-train was ended by SIGINT")

    monkeypatch.setattr(child.Children, "run", run)
    monkeypatch.setattr(child.Children, "stop", lambda self: ended.set())
    figure = Figure(RULES, STAGES, lambda workshop: pytest.fail("drawn"))
    with (
        Workshop(tmp_path, write=lambda line: None, jobs=2) as workshop,
        pytest.raises(error, match="why"),
    ):
        reproduction.reproduce("figure", figure, workshop, {})
    assert not (tmp_path / "evaluations").exists()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
