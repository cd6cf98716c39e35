"""A folder in which sweeps are run, for the tests of the launcher."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SHORT = ("--config.train.steps=16", "--config.train.warmup_steps=0")
ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
def get_sweep(arg=""):
    points = [{"h": "softmax"}] + [{"h": h, "alpha": a} for h in ("relu", "relu2") for a in (0.0, 1.0)]
    return {"base": "configs/quickstart.py", "points": points}
"""
MEMBERS = ["softmax_p7_seed0"] + [f"{h}_alpha{a}_p7_seed0" for h in ("relu", "relu2") for a in (0.0, 1.0)]


@dataclass
class Sweeps:
    """Runs real launchers with real stand-in workers, all in one temporary directory."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def workdir(self) -> Path:
        return self.folder / "W"

    def config(self, text: str = SWEEP) -> Path:
        path = self.folder / "sweep.py"
        path.write_text(text)
        return path

    def start(self, *flags: str, config: Path | None = None, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        paths = ["--config", str(config or self.config()), "--workdir", str(self.workdir)]
        settings = {"PYTHONPATH": str(ROOT), "STAND_IN_NOTES": str(self.folder), **self.environment}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/launch/drive_sweep.py"), *paths, *SHORT, *flags],
            env={**os.environ, **settings},
            cwd=ROOT,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *flags: str, config: Path | None = None) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*flags, config=config)
        out, err = process.communicate(timeout=200)
        return process.returncode, out, err

    def starts(self) -> list[list[str]]:
        """The members of each worker that was started, in order."""
        return self._notes("starts")

    def steps(self) -> list[list[str]]:
        """A member's name and a step, for each step that was trained, in order."""
        return self._notes("steps")

    def _notes(self, name: str) -> list[list[str]]:
        file = self.folder / name
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.workdir.rglob("*")) if path.is_file()}


def wait_until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
