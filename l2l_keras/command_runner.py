"""Runs the package's commands as processes, which free their memory when they end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any


class StageError(RuntimeError):
    """A command failed or cannot be run. The message is one line that a user understands.

    Example:
        >>> runner = l2l_keras.reproduction.CommandRunner(write=lambda line: None)
        >>> try:
        ...     runner.run(["l2l-evaluate", "--steps=0"])
        ... except l2l_keras.reproduction.StageError as error:
        ...     print(error)
        l2l-evaluate: flag --steps=0: 0 is not a positive integer ...
    """


class CommandRunner:
    """Runs commands of this package, one from each thread that calls `run`.

    Args:
        jobs: How many commands run at a time. They share the processor's threads, and each of
            their lines is prefixed with the label of its command. Defaults to 1.
        write: Called with each line of output. Defaults to `print`.
        patience: Seconds that a command gets to end after an interrupt before it is killed.
            Defaults to 20.

    Example:
        >>> runner = l2l_keras.reproduction.CommandRunner()
        >>> runner.run(["l2l-evaluate", "--version"])
        $ l2l-evaluate --version
        evaluate (l2l-keras) ...
    """

    def __init__(
        self, jobs: int = 1, write: Callable[[str], None] = print, patience: float = 20.0
    ) -> None:
        self.jobs = jobs
        self._write = write
        self._patience = patience
        self._lock = threading.RLock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def write(self, line: str, label: str = "") -> None:
        """Writes a line, prefixed with a label if several commands run at a time."""
        with self._lock:
            self._write(f"{label}: {line}" if label and self.jobs > 1 else line)

    def run(self, command: Sequence[str], label: str = "") -> None:
        """Runs a command to its end, and writes the command and what it prints.

        Args:
            command: The name of a command, such as `"l2l-evaluate"`, and its arguments.
            label: What to call it among other commands. Defaults to no label.

        Raises:
            StageError: If the command fails, or was ended by `stop`.
        """
        name, *arguments = command
        script = name.removeprefix("l2l-").replace("-", "_")
        self.write(f"$ {shlex.join(command)}", label)
        process = self._start([f"l2l_keras.scripts.{script}", *arguments])
        message = last = ""
        for line in process.stdout or ():
            line = line.rstrip("\n")
            if line.startswith(f"{script}: "):  # The reason for a failure, which the error states.
                message = line.removeprefix(f"{script}: ")
            elif not self._stopped:  # Interrupted commands may print tracebacks.
                self.write(line, label)
                last = line.strip() or last
        status = process.wait()
        with self._lock:
            self._running.discard(process)
        if status < 0:
            hint = " (out of memory?)" if status == -signal.SIGKILL else ""
            raise StageError(f"{name} was ended by {signal.Signals(-status).name}{hint}")
        if status:
            raise StageError(f"{name}: {message or last or f'it failed with status {status}'}")

    def each(self, function: Callable[[Any], None], items: Sequence[Any]) -> None:
        """Calls a function, which runs commands, for each item: for `jobs` of them at a time."""
        pool = futures.ThreadPoolExecutor(self.jobs)
        try:
            for done in futures.as_completed([pool.submit(function, item) for item in items]):
                done.result()
        except BaseException:  # Ctrl-C, too.
            pool.shutdown(wait=False, cancel_futures=True)
            self.stop()
            raise
        finally:
            pool.shutdown()

    def stop(self) -> None:
        """Interrupts all running commands and waits for their end; none can be started after."""
        with self._lock:
            self._stopped = True
            processes = list(self._running)
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            try:
                process.wait(self._patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, module: Sequence[str]) -> subprocess.Popen[str]:
        """Starts a Python module as a process."""
        affinity = getattr(os, "sched_getaffinity", None)
        processors = len(affinity(0)) if affinity else os.cpu_count() or 1
        threads = str(max(1, processors // self.jobs))
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **({"TF_NUM_INTRAOP_THREADS": threads} if self.jobs > 1 else {}),
            **os.environ,
            # The modules that this process finds.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        with self._lock:
            if self._stopped:
                raise StageError("Stopped")
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
                close_fds=False,  # It inherits the lock of a workspace.
                start_new_session=True,  # Ctrl-C in a terminal reaches it through `stop` alone.
            )
            self._running.add(process)
        return process
