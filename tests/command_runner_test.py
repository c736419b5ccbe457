"""Tests of how commands are run, with a shell script instead of Python, which starts quickly."""

import os
import queue
import signal
import sys
import threading

import pytest

from l2l_keras.reproduction import CommandRunner, StageError


@pytest.fixture(name="set_script")
def set_script_fixture(tmp_path, monkeypatch):
    """Makes every command run a shell script; returns a function that sets the script."""
    path = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(path))

    def set_script(script):
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return set_script


@pytest.fixture(name="interruptible")
def interruptible_fixture():
    """A shell cannot catch a signal that it inherits as ignored, as background jobs do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def outputs(*command, jobs=1, label=""):
    """Runs a command and returns the lines written."""
    lines = []
    CommandRunner(jobs, lines.append).run(command, label)
    return lines


def test_the_command_and_its_output_are_written(set_script):
    set_script('echo "$@"; echo more >&2')
    arguments = "-m l2l_keras.scripts.meta_train --task_option=layers=(40,)"
    command = ("l2l-meta-train", "--task_option=layers=(40,)")
    printed = "$ l2l-meta-train '--task_option=layers=(40,)'"
    assert outputs(*command, label="lstm") == [printed, arguments, "more"]
    lines = outputs(*command, label="lstm", jobs=2)
    assert lines == [f"lstm: {line}" for line in (printed, arguments, "more")]


def test_the_command_finds_the_modules_that_this_process_finds(set_script, monkeypatch):
    monkeypatch.syspath_prepend("/somewhere")
    set_script('echo "$PYTHONPATH"')
    assert outputs("l2l-evaluate")[1].split(os.pathsep)[0] == "/somewhere"


@pytest.mark.parametrize(
    "script, message",
    [
        ("echo on; echo 'evaluate: No data.' >&2; exit 1", "l2l-evaluate: No data."),
        ("echo 'KeyError: x' >&2; exit 1", "l2l-evaluate: KeyError: x"),
        ("exit 3", "l2l-evaluate: it failed with status 3"),
        ("kill -9 $$", "l2l-evaluate was ended by SIGKILL (out of memory?)"),
        ("kill -15 $$", "l2l-evaluate was ended by SIGTERM"),
    ],
)
def test_a_failure_is_one_line(set_script, script, message):
    set_script(script)
    lines = []
    with pytest.raises(StageError) as error:
        CommandRunner(write=lines.append).run(["l2l-evaluate"])
    assert str(error.value) == message
    assert not [line for line in lines if line.startswith("evaluate: ")]


@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.usefixtures("interruptible")
def test_stop_ends_all_commands_and_prevents_others(set_script, obeys):
    trap = "trap 'echo a traceback; exit 130' INT" if obeys else "trap '' INT"
    # A loop, because a shell handles a signal when the command that it waits for has ended.
    set_script(f"{trap}\necho $$\nwhile true; do sleep 0.05; done")
    lines = queue.Queue()
    runner = CommandRunner(1, lines.put, patience=60 if obeys else 0.2)
    errors = []

    def run():
        try:
            runner.run(["l2l-meta-train"])
        except StageError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    printed = [lines.get(timeout=60) for _ in range(4)]
    processes = [int(line) for line in printed if line.isdigit()]
    runner.stop()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    for thread in threads:
        thread.join()
    assert len(errors) == len(processes) == 2
    if not obeys:
        assert errors[0] == "l2l-meta-train was ended by SIGKILL (out of memory?)"
    assert lines.empty()
    with pytest.raises(StageError, match="Stopped"):
        runner.run(["l2l-meta-train"])


@pytest.mark.parametrize("jobs, given, expected", [(1, None, ""), (1000, None, "1"), (2, "7", "7")])
def test_commands_share_the_processor(set_script, monkeypatch, jobs, given, expected):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if given:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given)
    set_script('echo "$TF_NUM_INTRAOP_THREADS"')
    assert outputs("l2l-evaluate", jobs=jobs)[1] == expected


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
