"""Training time: the wall clock without evaluation and saving; and what saving costs."""

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


class SaveClock:
    """Counts what saving takes from the loop, as a share of the time since the save before it (or since the start)."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self.share = 0.0  # of the newest save
        self._new = False

    @contextmanager
    def saving(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            self.share, self._new = (now - start) / max(now - self._since, 1e-9), True
            self._since = now

    def metrics(self) -> dict[str, float]:
        """For the first row after a save."""
        row = {"speed/save_share": self.share} if self._new else {}
        self._new = False
        return row
