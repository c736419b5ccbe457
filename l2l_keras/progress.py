"""Progress of long work: lines of text, with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes a line of text about the progress of the work."""


def silent(_: str) -> None:
    """Ignores a line of progress."""


def prefixed(progress: Progress, prefix: str) -> Progress:
    """Returns a `Progress` that puts a prefix and a colon before every line."""
    return lambda line: progress(f"{prefix}: {line}")


class Timer:
    """Adds the time left to lines of progress.

    Args:
        total: Pieces of work to come, of about the same length.
        progress: Takes the lines.
    """

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._start = time.monotonic()

    def after(self, pieces: int) -> Progress:
        """Returns a `Progress` for lines that each follow a number of pieces of work."""

        def tell(line: str) -> None:
            self._done += pieces
            left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
            self._progress(f"{line}  ({duration(max(0.0, left))} left)")

        return tell


def duration(seconds: float) -> str:
    """Formats a duration in seconds by its two largest units, such as `"2 h 03 min"`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
