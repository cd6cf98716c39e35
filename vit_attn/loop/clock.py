"""Training time: the wall clock without evaluation and saving."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainClock:
    """Counts seconds between laps, pauses left out."""

    def __init__(self) -> None:
        self._lap_start = time.monotonic()
        self._paused = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - start

    def lap(self) -> float:
        """Training seconds since the last lap."""
        now = time.monotonic()
        seconds = now - self._lap_start - self._paused
        self._lap_start, self._paused = now, 0.0
        return seconds
