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
        self._most = 0.0  # of those that no row has told

    @contextmanager
    def saving(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            self.share = (now - start) / max(now - self._since, 1e-9)
            self._most, self._since = max(self._most, self.share), now

    def metrics(self) -> dict[str, float]:
        """For a row: the largest share of the saves since the row before."""
        row = {"speed/save_share": self._most} if self._most else {}
        self._most = 0.0
        return row
