"""Where each member of a sweep stands, read from its files."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.sweep_dir import SweepDir
from vit_attn.store.run_dir import FINISHED, RunDir

NOT_AT_WORK = ("waiting", "stopped", "paused", "failed", "interrupted")


@dataclass(frozen=True)
class Progress:
    """One member. `metrics` are the newest; `seconds_left` is None where nobody works on it; `updated` is in unix seconds."""

    name: str
    state: str
    step: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    message: str = ""
    updated: float = 0.0

    @property
    def steps_left(self) -> int:
        return 0 if self.state in FINISHED else self.steps - self.step


class Watch:
    """Reads the progress of all members of a sweep, again and again. Raises UserError where no sweep lives."""

    def __init__(self, path: Path) -> None:
        runs = [run for members in SweepDir(path).packs().values() for run in members]
        self.runs = {run: _steps_of(run) for run in runs}

    def look(self) -> list[Progress]:
        return [_progress(run, steps) for run, steps in self.runs.items()]


def _steps_of(run: RunDir) -> int:
    spec = run.spec()
    return 0 if spec is None else spec.train.steps


def _progress(run: RunDir, steps: int) -> Progress:
    status = run.status()
    state = status.seen_state()
    seconds_left = status.seconds_left if state == "running" else None
    return Progress(run.name, state, status.step, steps, status.metrics, seconds_left, status.message, status.updated)


def mark_starting(members: Sequence[Progress], started: Mapping[str, float]) -> list[Progress]:
    """Members whose worker was `started` (unix seconds) and has not yet written a status of its own become `starting`."""

    def is_starting(member: Progress) -> bool:
        return member.state in NOT_AT_WORK and member.updated < started.get(member.name, 0.0)

    return [dataclasses.replace(m, state="starting", message="") if is_starting(m) else m for m in members]


def seconds_left(before: Sequence[Progress], now: Sequence[Progress], elapsed: float) -> float | None:
    """Time to the end of the sweep if a step goes on costing what it cost since `before`; None until a step was made."""
    left = sum(member.steps_left for member in now)
    made = sum(member.steps_left for member in before) - left
    return elapsed * left / made if made > 0 else None
