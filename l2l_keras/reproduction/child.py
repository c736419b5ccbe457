"""Runs one of the package's commands as a process of its own, which gives its memory back."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

# What TensorFlow says of itself before anyone can ask it not to.
_NOTES = re.compile(r"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:\d\d:")
# Seconds that a process is given to end, before each of these signals. Ctrl-C in a terminal
# reaches the process too, so that it is on its way out already; `kill -INT` does not.
_STOP = ((5.0, signal.SIGINT), (20.0, signal.SIGKILL))


class StageError(RuntimeError):
    """A command failed, or cannot be run: the message is one line that a user understands.

    Args:
        message: What is wrong.

    Example:
        >>> raise l2l_keras.reproduction.StageError("Data set 'mnist' could not be read")
        Traceback (most recent call last):
        l2l_keras.reproduction.child.StageError: Data set 'mnist' could not be read
    """


def run(
    command: str,
    arguments: Sequence[str],
    write: Callable[[str], None] = print,
    keep_open: Sequence[int] = (),
) -> None:
    """Runs a command to its end, and passes on what it prints.

    Args:
        command: One of the package's commands, such as `"l2l-evaluate"`.
        arguments: Its command line.
        write: Called with the command and then with each line that it prints, as it comes.
            Defaults to `print`.
        keep_open: File descriptors that the process inherits.

    Raises:
        StageError: If the command fails, with its own message.
        KeyboardInterrupt: If it is interrupted, once the command has ended.

    Example:
        >>> run("l2l-evaluate", ["--task=quadratic", "--steps=10"])  # doctest: +SKIP
    """
    script = command.removeprefix("l2l-").replace("-", "_")
    write(f"$ {shlex.join([command, *arguments])}")
    process = subprocess.Popen(
        [sys.executable, "-m", f"l2l_keras.scripts.{script}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=tuple(keep_open),
        # It shall find the modules that this process finds, however it came to find them.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    message, last = "", ""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            line = line.rstrip("\n")
            if line.startswith(f"{script}: "):  # Why it ends: that is for the caller to say.
                message = line.partition(": ")[2]
            elif not _NOTES.match(line):
                write(line)
                last = line.strip() or last
        status = process.wait()
    except BaseException:
        _stop(process)
        raise
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
        raise StageError(f"{command} was ended by {name}{hint}")
    if status:
        raise StageError(f"{command}: {message or last or f'it failed with status {status}'}")


def _stop(process: subprocess.Popen[str]) -> None:
    """Waits for a process that should end, and makes it if it does not."""
    for seconds, urge in _STOP:
        try:
            process.communicate(timeout=seconds)
            return
        except subprocess.TimeoutExpired:
            process.send_signal(urge)
    process.communicate()
