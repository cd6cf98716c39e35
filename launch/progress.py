"""Where each member of a sweep stands, read from its files."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from launch.journal import Record, interruptions, newest
from launch.submissions import Submission, Submissions
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError
from vit_attn.store.run_dir import FINISHED, RunDir, Status

NOT_AT_WORK = ("waiting", "stopped", "paused", "failed", "interrupted")


@dataclass(frozen=True)
class Progress:
    """One member. `goal`: the step at which it pauses (a rung of successive halving), None if it goes on to `steps`. `metrics`
    are the newest; `seconds_left` is None where nobody works on it; `updated` is in unix seconds; `preempted`: how often a
    cluster took its node away."""

    name: str
    state: str
    step: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    message: str = ""
    updated: float = 0.0
    preempted: int = 0
    goal: int | None = None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def steps_left(self) -> int:
        """To its goal, which is not known to be passed."""
        end = self.steps if self.goal is None else min(self.goal, self.steps)
        return 0 if self.finished else max(end - self.step, 0)


class Watch:
    """Reads the progress of all members of a sweep, again and again. Raises UserError where no sweep lives."""

    def __init__(self, path: Path) -> None:
        self.sweep = SweepDir(path)
        self.packs = self.sweep.packs()
        self.steps = {pack: _steps_of(runs) for pack, runs in self.packs.items()}

    @property
    def complete(self) -> bool:
        """Whether all packs have a member with settings: while a sweep's directory is being made, they have not."""
        return all(self.steps.values())

    def look(self) -> list[Progress]:
        submitted = Submissions(self.sweep.path).newest_of_packs()
        members = []
        for pack, runs in self.packs.items():
            submission = submitted.get(pack)
            records = self.sweep.journal(pack).read() if submission else []
            members += [_progress(run, self.steps[pack], submission, records) for run in runs]
        return members


def _steps_of(runs: Sequence[RunDir]) -> int:
    """The same for all members of a pack: of the first that can be read; 0 if there is none."""
    for run in runs:
        with suppress(UserError):
            if (spec := run.spec()) is not None:
                return spec.train.steps
    return 0


def _progress(run: RunDir, steps: int, submission: Submission | None, records: Sequence[Record]) -> Progress:
    try:
        spec, status = run.spec(), run.status()
    except UserError as error:
        return Progress(run.name, "unreadable", 0, steps, message=str(error))
    state = status.seen_state() if submission is None else _state_on_cluster(status, submission, list(records))
    seconds_left = status.seconds_left if state == "running" else None
    message = status.message if state not in ("submitting", "queued", "starting") else ""
    return Progress(
        run.name,
        state,
        status.step,
        steps,
        status.metrics,
        seconds_left,
        message,
        status.updated,
        preempted=interruptions(list(records)),
        goal=spec.loop.until if spec else None,
    )


def _state_on_cluster(status: Status, submission: Submission, records: list[Record]) -> str:
    """What the worker's journal and the newest submission tell beyond the member's own status."""
    if status.state in FINISHED:
        return status.state
    record = newest(records, submission.name)
    if record is None:
        queued = "submitting" if submission.ids is None else "queued"
        return queued if submission.time > status.updated else status.seen_state()
    if record["event"] == "start":
        return "starting" if record["time"] > status.updated else status.state
    return "interrupted" if status.state == "running" else status.state


def mark_starting(members: Sequence[Progress], started: Mapping[str, float]) -> list[Progress]:
    """Members whose worker was `started` (unix seconds) and has not yet written a status of its own become `starting`."""

    def is_starting(member: Progress) -> bool:
        return member.state in NOT_AT_WORK and member.updated < started.get(member.name, 0.0)

    return [dataclasses.replace(m, state="starting", message="") if is_starting(m) else m for m in members]


def seconds_left(before: Sequence[Progress], now: Sequence[Progress], elapsed: float) -> float | None:
    """Time until all reach their goals if a step goes on costing what it cost since `before`; None until one was made."""
    left = sum(member.steps_left for member in now)
    made = sum(member.step for member in now) - sum(member.step for member in before)
    return elapsed * left / made if made > 0 else None


def seconds_left_now(members: Sequence[Progress]) -> float | None:
    """The same from one look: if all go on at the rate of those that run. None where nobody runs."""
    rate = sum(member.steps_left / member.seconds_left for member in members if member.seconds_left)
    return sum(member.steps_left for member in members) / rate if rate else None
