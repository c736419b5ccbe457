"""Tests of how commands are run: with a shell script in place of Python, which starts at once."""

import os
import queue
import signal
import sys
import threading

import pytest

from l2l_keras.reproduction import StageError, child


@pytest.fixture(name="commands")
def commands_fixture(tmp_path, monkeypatch):
    """Makes every command do what a shell script says; returns how to set the script."""
    path = tmp_path / "python"

    def set_script(script):
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setattr(sys, "executable", str(path))
    return set_script


def test_the_command_and_what_it_prints_are_passed_on(commands):
    commands('echo "$@"; echo more >&2; echo "I0000 00:00:1.5 1 cpu.cc:1] a note" >&2')
    lines = []
    child.Children().run("l2l-meta-train", ["--task_option=layers=(40,)"], lines.append)
    assert lines == [
        "$ l2l-meta-train '--task_option=layers=(40,)'",
        "-m l2l_keras.scripts.meta_train --task_option=layers=(40,)",
        "more",
    ]


def test_the_command_finds_the_modules_that_this_process_finds(commands, monkeypatch):
    monkeypatch.syspath_prepend("/somewhere")
    commands('echo "$PYTHONPATH"')
    lines = []
    child.Children().run("l2l-evaluate", [], lines.append)
    assert lines[1].split(os.pathsep)[0] == "/somewhere"


@pytest.mark.parametrize(
    "script, message",
    [
        ("echo on; echo 'evaluate: No data.' >&2; exit 1", "l2l-evaluate: No data."),
        ("echo 'KeyError: x' >&2; exit 1", "l2l-evaluate: KeyError: x"),
        ("exit 3", "l2l-evaluate: it failed with status 3"),
        ("kill -9 $$", "l2l-evaluate was ended by SIGKILL, perhaps for want of memory"),
        ("kill -15 $$", "l2l-evaluate was ended by SIGTERM"),
    ],
)
def test_a_failure_is_said_in_one_line(commands, script, message):
    commands(script)
    lines = []
    with pytest.raises(StageError) as error:
        child.Children().run("l2l-evaluate", [], lines.append)
    assert str(error.value) == message
    assert not [line for line in lines if line.startswith("evaluate: ")]


@pytest.fixture(name="interruptible")
def interruptible_fixture():
    """A shell cannot catch a signal that it inherits as ignored, as jobs in the background do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_command_has_ended_when_the_interrupt_comes_out(
    commands, tmp_path, monkeypatch, obeys
):
    ending = f"trap 'echo ended > {tmp_path}/ended; exit 130' INT" if obeys else "trap '' INT"
    # A loop: a shell acts on a signal once the command that it waits for has ended.
    commands(f"{ending}\necho $$\nwhile true; do sleep 0.05; done")
    patience = 60 if obeys else 0.5  # Whoever obeys may be slow, on a machine that is busy.
    monkeypatch.setattr(child, "_STOP", ((0.2, signal.SIGINT), (patience, signal.SIGKILL)))
    lines = []

    def write(line):
        lines.append(line)
        if line.isdigit():
            raise KeyboardInterrupt  # As Ctrl-C does, here of this process only.

    with pytest.raises(KeyboardInterrupt):
        child.Children().run("l2l-meta-train", [], write)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[-1]), 0)
    assert (tmp_path / "ended").exists() == obeys


@pytest.mark.usefixtures("interruptible")
def test_stop_ends_all_that_run_and_lets_nothing_start(commands, monkeypatch):
    commands("trap 'echo 0; kill -9 $$' INT\necho $$\nwhile true; do sleep 0.05; done")
    monkeypatch.setattr(child, "_STOP", ((0.2, signal.SIGINT), (60, signal.SIGKILL)))
    children = child.Children()
    lines = queue.Queue()
    errors, hint = [], ", perhaps for want of memory"

    def run():
        try:
            children.run("l2l-meta-train", [], lambda line: line.isdigit() and lines.put(line))
        except StageError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    running = [int(lines.get(timeout=60)) for _ in threads]
    children.stop()
    for process in running:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    for thread in threads:
        thread.join()
    assert errors == [f"l2l-meta-train was ended by SIGKILL{hint}"] * 2
    assert lines.empty()
    with pytest.raises(StageError, match="Stopped"):
        children.run("l2l-meta-train", [], lambda line: None)


@pytest.mark.parametrize("threads, given, expected", [(0, None, ""), (3, None, 3), (3, "2", 2)])
def test_the_command_gets_its_share_of_processors(commands, monkeypatch, threads, given, expected):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if given:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given)
    commands('echo "$TF_NUM_INTRAOP_THREADS"')
    lines = []
    child.Children(threads).run("l2l-evaluate", [], lines.append)
    assert lines[1] == str(expected)


def test_the_command_inherits_what_is_kept_open(commands, tmp_path):
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    commands(f"[ -e /dev/fd/{descriptor} ] && echo open || echo closed")
    lines = []
    child.Children().run("l2l-evaluate", [], lines.append, keep_open=[descriptor])
    child.Children().run("l2l-evaluate", [], lines.append)
    os.close(descriptor)
    assert lines[1::2] == ["open", "closed"]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
