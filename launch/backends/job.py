"""What the launcher asks of a place where packs are trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Job(Protocol):
    """One worker that trains one pack."""

    def poll(self) -> int | None:
        """Its exit code, negative for the signal that killed it; None while it runs."""

    def stop(self) -> None:
        """Asks it to save and to end; does not wait."""


class Backend(Protocol):
    def start(self, runs: Sequence[Path], log: Path) -> Job:
        """Starts a worker on the run directories of one pack; what it prints is appended to `log`."""
