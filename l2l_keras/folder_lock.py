"""A lock on a folder, so that two programs do not write to it at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class FolderInUseError(RuntimeError):
    """Another process works in a folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder, which exists, for this process and for the commands that it runs.

    Raises:
        FolderInUseError: If another process holds the lock.
    """
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise FolderInUseError(
            f"Another process works in {str(folder)!r}: wait for it, or use another one"
        ) from error
    finally:
        os.close(lock)
