"""Runs the package's commands as processes of their own, which give their memory back."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
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


class Children:
    """Commands that run as processes, each for the thread that waits for it.

    Args:
        threads: Processor threads of TensorFlow in each of them. Defaults to 0: all there are.

    Example:
        >>> children = l2l_keras.reproduction.child.Children()
        >>> children.run("l2l-evaluate", ["--task=quadratic", "--steps=10"])  # doctest: +SKIP
    """

    def __init__(self, threads: int = 0) -> None:
        self._environment = {"TF_NUM_INTRAOP_THREADS": str(threads)} if threads else {}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(
        self,
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
            StageError: If the command fails, with its own message; or after `stop`.
            KeyboardInterrupt: If it is interrupted, once the command has ended.
        """
        script = command.removeprefix("l2l-").replace("-", "_")
        write(f"$ {shlex.join([command, *arguments])}")
        process = self._start([f"l2l_keras.scripts.{script}", *arguments], keep_open)
        message, last = "", ""
        assert process.stdout is not None
        try:
            for line in process.stdout:
                line = line.rstrip("\n")
                if line.startswith(f"{script}: "):  # Why it ends: that is for the caller to say.
                    message = line.partition(": ")[2]
                elif not _NOTES.match(line) and not self._stopped:
                    write(line)
                    last = line.strip() or last
            status = process.wait()
        except BaseException:
            # It may have more to say before it ends.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            _stop([process])
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if status < 0:
            name = signal.Signals(-status).name
            hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
            raise StageError(f"{command} was ended by {name}{hint}")
        if status:
            raise StageError(f"{command}: {message or last or f'it failed with status {status}'}")

    def stop(self) -> None:
        """Ends all that run, for whichever threads; nothing can be run afterwards.

        What they still print is not passed on: tracebacks, where they were starting.
        """
        with self._lock:
            self._stopped = True
            processes = list(self._running)
        _stop(processes)

    def _start(self, module: Sequence[str], keep_open: Sequence[int]) -> subprocess.Popen[str]:
        """Starts a module and notes that it runs."""
        # It shall find the modules that this process finds, however it came to find them.
        path = os.pathsep.join(path for path in sys.path if path)
        with self._lock:
            if self._stopped:
                raise StageError("Stopped")
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=tuple(keep_open),
                env={**self._environment, **os.environ, "PYTHONPATH": path},
            )
            self._running.add(process)
        return process


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Waits for processes that should end, and makes them if they do not."""
    for seconds, urge in _STOP:
        deadline = time.monotonic() + seconds
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(urge)
    for process in processes:
        process.wait()
