"""Packs as jobs in a cluster's own queue: what Slurm, TPU VMs and Kubernetes have in common.

A cluster is asked for all its jobs at once, every few seconds, whatever their number. Whether a job ended well is not asked of
it but read in the journal that its worker writes; so no accounting is needed, and a node that vanishes is a job without an end.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from signal import SIGKILL

from launch.backends.job import TAKEN_AWAY, BusyError, Job, Task
from launch.backends.program import need
from launch.failure import STOPPED_CODES
from launch.journal import Record, newest
from launch.submissions import Submission, Submissions
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec

NEVER_STARTED = 127  # as a shell's, where there is no such program
NO_START = "its worker has never started: look for the reason above, or ask the cluster"
NO_END = "its worker has ended without a word: it was killed, or its machine is gone"
GONE_LOOKS = 2  # so often in a row must a job be missing in its queue: one may come late, as may the last line of its journal


class State(Enum):
    """Of a job, as its cluster lists it."""

    HERE = "waits or runs"
    TAKEN = "ended by the cluster itself, and not queued again"
    CANCELLED = "ended by somebody"
    OVER = "ended by itself"


class Cluster(ABC):
    """A backend that is a queue. `kind` is its name in the table of backends; `programs` are those that ask it."""

    kind: str
    programs: tuple[str, ...]
    sees_files = True
    keeps_machines = False  # whether they stay after a job, so that its end is only in the journal
    look_seconds = 5.0

    def __init__(self, sweep: SweepDir) -> None:
        self.sweep, self.submissions = sweep, Submissions(sweep.path)
        self.look = 0  # how often the queue was seen
        self._listed: dict[str, State] = {}
        self._next_look = 0.0

    @property
    def slots(self) -> None:
        return None

    def submit(self, tasks: Sequence[Task]) -> list[Job]:
        submission = self.submissions.new(self.kind, [task.pack for task in tasks])  # where that is impossible, nothing is sent
        try:
            sent = self._recorded(submission, self.send(submission, tasks))
        except UserError:
            with suppress(BusyError):
                self._settled(submission)  # it may have taken some before it refused
            raise
        self._next_look = 0.0
        return [ClusterJob(self, task, sent) for task in tasks if sent.may_hold(task.pack)]

    def attach(self, tasks: Sequence[Task]) -> dict[str, Job]:
        """Raises BusyError where the cluster does not answer: then nobody knows what is at work."""
        need(*self.programs)
        mine = [one for one in self.submissions.read() if one.backend == self.kind]
        settled = [self._settled(one) if one.ids is None else one for one in mine]
        jobs: dict[str, Job] = {}
        for task in tasks:
            holding = (one for one in reversed(settled) if one is not None and one.may_hold(task.pack))
            at_work = next((one for one in holding if not self._over(one, task.pack)), None)
            if at_work is not None:
                jobs[task.pack] = ClusterJob(self, task, at_work)
        return jobs

    def state(self, job: str) -> State | None:
        """None: it is not in the list. The list is at most `look_seconds` old, or as old as the cluster's silence."""
        if time.monotonic() >= self._next_look:
            try:
                self._listed = self.listed()
                self.look += 1
            except BusyError:  # it will answer again, and its jobs go on meanwhile
                pass
            self._next_look = time.monotonic() + self.look_seconds
        return self._listed.get(job)

    @abstractmethod
    def check(self, runs: Mapping[Path, RunSpec]) -> None: ...

    @abstractmethod
    def dry_run(self, tasks: Sequence[Task], say: Callable[[str], None]) -> None: ...

    @abstractmethod
    def send(self, submission: Submission, tasks: Sequence[Task]) -> dict[str, str]:
        """Queues a job for each task; returns their ids by pack. Raises BusyError, UserError."""

    @abstractmethod
    def find(self, submission: Submission) -> dict[str, str]:
        """The ids by pack of a submission whose answer was lost; of none where the cluster never got it. Raises BusyError."""

    @abstractmethod
    def listed(self) -> dict[str, State]:
        """All jobs that the cluster knows, by id; those that ended long ago may be missing. Raises BusyError."""

    @abstractmethod
    def cancel(self, job: str) -> None:
        """Out of the queue if it waits there, else asked to save and to end."""

    def words(self, job: str) -> str:
        """What the cluster itself has to say of a job that ended without a word of its worker; "" if nothing."""
        return ""

    def release(self, job: str) -> None:
        """Of a job that is over: gives back what it still holds. A queue that gives back by itself leaves it at that."""
        return None

    def last_word(self, record: Record) -> bool:
        """Whether no other record of its submission will follow: a machine that stays shows it nowhere else."""
        ended = self.keeps_machines and record["event"] == "end"
        return ended and bool(record["asked"] or record["code"] not in STOPPED_CODES)

    def _settled(self, submission: Submission) -> Submission | None:
        """One without an answer, with the ids that are found; None, and forgotten, if neither the cluster nor a worker knows
        of it. Raises BusyError."""
        ids = self.find(submission)
        if ids or any(newest(self.sweep.journal(pack).read(), submission.name) for pack in submission.packs):
            return self._recorded(submission, ids)
        self.submissions.delete(submission)
        return None

    def _recorded(self, submission: Submission, ids: dict[str, str]) -> Submission:
        recorded = Submission(submission.name, submission.backend, submission.packs, ids, submission.time)
        with suppress(OSError):  # a full disk: then the next launcher asks the queue
            self.submissions.write(recorded)
        return recorded

    def _over(self, submission: Submission, pack: str) -> bool:
        """Whether a job that an earlier launcher has submitted is known to have ended."""
        assert submission.ids is not None
        state = self.state(submission.ids[pack])
        if not self.look:
            raise BusyError(f"{self.kind} does not answer, so that nobody knows what is at work there")
        record = newest(self.sweep.journal(pack).read(), submission.name)
        return state is not State.HERE or (record is not None and self.last_word(record))


@dataclass
class ClusterJob:
    cluster: Cluster
    task: Task
    submission: Submission
    missing: int = field(default=0, init=False)
    looked: int = field(default=0, init=False)

    @property
    def id(self) -> str:
        assert self.submission.ids is not None
        return self.submission.ids[self.task.pack]

    def poll(self) -> int | None:
        code = self._poll()
        if code is not None:
            self.cluster.release(self.id)
        return code

    def _poll(self) -> int | None:
        state = self.cluster.state(self.id)
        if self.looked == self.cluster.look:
            return None
        self.looked = self.cluster.look
        record = newest(self.cluster.sweep.journal(self.task.pack).read(), self.submission.name)
        code = record["code"] if record and record["event"] == "end" else None
        if code == 0:  # whatever the cluster thinks: its node may be silent
            return 0
        if record and code is not None and self.cluster.last_word(record):
            return int(code)
        self.missing = self.missing + 1 if state is None else 0
        if state is State.HERE or 0 < self.missing < GONE_LOOKS:
            return None
        if state is State.TAKEN and code in (None, *STOPPED_CODES):
            return TAKEN_AWAY
        if code is not None:
            return int(code)
        if state is State.CANCELLED:
            return STOPPED_CODES[0]
        with open(self.task.log, "a") as log:
            log.write("\n".join(filter(None, [self.cluster.words(self.id), NO_START if record is None else NO_END, ""])))
        return NEVER_STARTED if record is None else -SIGKILL

    def stop(self) -> None:
        self.cluster.cancel(self.id)
