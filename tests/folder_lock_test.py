"""Tests of locks on folders."""

import fcntl
import subprocess
import sys

import pytest

from l2l_keras.folder_lock import FolderInUseError, locked


def test_one_process_at_a_time(tmp_path):
    for _ in range(2):  # The lock is released, and can be taken again.
        with (
            locked(tmp_path),
            pytest.raises(FolderInUseError, match=f"Another process works in '{tmp_path}'"),
            locked(tmp_path),
        ):
            pass


def test_commands_inherit_the_lock(tmp_path):
    with locked(tmp_path):
        command = [sys.executable, "-Sc", "print(flush=True); input()"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, close_fds=False, **pipes)
        process.stdout.readline()
    with (tmp_path / ".lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.communicate(b"\n")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
