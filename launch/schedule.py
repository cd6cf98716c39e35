"""Which packs wait, run and are over; a pack that fails is tried once more."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from launch.backends.job import TAKEN_AWAY, Backend, BusyError, Job, Task, task_of
from launch.failure import STOPPED_CODES, reason
from launch.sweep_dir import SweepDir, all_finished
from vit_attn.spec.errors import UserError
from vit_attn.store.run_dir import FINISHED, RunDir

ATTEMPTS = 2
PAUSE_SECONDS, LONGEST_PAUSE = 5.0, 300.0  # after a place took no jobs; twice as long each time


@dataclass(frozen=True)
class Attempt:
    """A worker on a pack: the `number`th one, started at `started` (unix seconds), its output from byte `log_start` on."""

    pack: str
    number: int
    job: Job
    log_start: int
    started: float


class Schedule:
    """Of `packs` (all of the sweep's) those that have a member to finish, in their order, as many at a time as the backend
    takes. `say` takes news."""

    def __init__(
        self, sweep: SweepDir, backend: Backend, say: Callable[[str], None], packs: Mapping[str, list[RunDir]] | None = None
    ) -> None:
        self.sweep, self.backend, self.say = sweep, backend, say
        self.packs = sweep.packs() if packs is None else packs
        self.waiting = deque((name, 1) for name, runs in self.packs.items() if not all_finished(runs))
        self.running: list[Attempt] = []
        self.failed: dict[str, str] = {}  # pack -> reason
        self.stopped: list[str] = []  # packs that somebody asked to end
        self.stopping = False
        self._attached = False
        self._pause, self._next_start = PAUSE_SECONDS, 0.0

    @property
    def over(self) -> bool:
        return not self.running and not self.waiting

    def tick(self) -> None:
        """Looks at what ended since the last call, and starts what can start. Raises UserError where the backend never will."""
        for attempt in list(self.running):
            code = attempt.job.poll()
            if code is not None:
                self.running.remove(attempt)
                self._ended(attempt, code)
        if self.waiting and time.monotonic() >= self._next_start:
            try:
                self._start()
                self._pause = PAUSE_SECONDS
            except (BusyError, OSError) as busy:  # or a full disk
                self._attached = False  # its answer may be lost: what it took is looked for before it is asked again
                self.say(f"no pack was started ({busy}); the next try is in {self._pause:.0f} seconds")
                self._next_start = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def stop(self, by: str) -> None:
        """Starts nothing more and asks every worker to save and end; go on calling `tick` until all are `over`."""
        self.stopping = True
        if not self._attached:
            try:
                self._attach()
            except BusyError as busy:
                self.say(f"{by}: whether jobs are at work is not known ({busy}); launch.stop asks again")
        self.waiting.clear()
        workers = len(self.running)
        self.say(f"{by}: waiting for {workers} workers to save and end" if workers else f"{by}: no worker is at work")
        for attempt in self.running:
            try:
                attempt.job.stop()
            except (BusyError, UserError) as error:
                self.sweep.stop_file.touch()  # a worker that sees it ends without being asked
                self.say(f"{by}: pack {attempt.pack} could not be asked to end ({error}); it ends when it sees the stop file")

    def started(self) -> dict[str, float]:
        """Members whose worker is alive, with the time at which it was started (unix seconds). Of a queue nobody knows it."""
        if self.backend.slots is None:
            return {}
        return {run.name: attempt.started for attempt in self.running for run in self.packs[attempt.pack]}

    def _start(self) -> None:
        """Those at work already, and as many others as there is room for."""
        if not self._attached:
            self._attach()
        slots = self.backend.slots
        room = len(self.waiting) if slots is None else min(slots - len(self.running), len(self.waiting))
        if room <= 0:
            return
        chosen = [self.waiting[index] for index in range(room)]
        before = [self._log_end(pack) for pack, _ in chosen]
        jobs = self.backend.submit([self._task(pack) for pack, _ in chosen])
        for (pack, number), job, log_start in zip(chosen, jobs, before, strict=False):
            self.waiting.popleft()
            self.running.append(Attempt(pack, number, job, log_start, time.time()))
            verb = "started" if slots is not None else "queued"
            self.say(f"pack {pack}: {verb}" + (f" (attempt {number} of {ATTEMPTS})" if number > 1 else ""))

    def _attach(self) -> None:
        jobs = self.backend.attach([self._task(pack) for pack, _ in self.waiting])
        self._attached = True
        for pack, number in [one for one in self.waiting if one[0] in jobs]:
            self.waiting.remove((pack, number))
            self.running.append(Attempt(pack, number, jobs[pack], self._log_end(pack), time.time()))
            self.say(f"pack {pack}: at work already")

    def _task(self, pack: str) -> Task:
        return task_of(self.sweep, pack, self.packs[pack])

    def _log_end(self, pack: str) -> int:
        log = self.sweep.log(pack)
        return log.stat().st_size if log.exists() else 0

    def _ended(self, attempt: Attempt, code: int) -> None:
        pack, runs = attempt.pack, self.packs[attempt.pack]
        if all_finished(runs):
            paused = any(run.status().state == "paused" for run in runs)
            self.say(f"pack {pack}: {'paused' if paused else 'finished'}")
        elif code in STOPPED_CODES or (self.stopping and code == TAKEN_AWAY):
            self.say(f"pack {pack}: stopped")
            self.stopped.append(pack)
        elif code == TAKEN_AWAY:
            self.say(f"pack {pack}: interrupted by the cluster; it is queued again")
            self.waiting.append((pack, attempt.number))
        else:
            why = reason(code, self.sweep.log(pack), attempt.log_start)
            if attempt.number < ATTEMPTS and not self.stopping:
                self.say(f"pack {pack}: failed ({why}); it will be tried once more")
                self.waiting.append((pack, attempt.number + 1))
            else:
                self.say(f"pack {pack}: failed ({why}); log: {self.sweep.log(pack)}")
                self.failed[pack] = why
                try:
                    for run in runs:
                        _mark_failed(run, why)
                except OSError as error:  # the disk is full, which may be why it failed
                    self.say(f"pack {pack}: its members could not be marked as failed: {error}")


def _mark_failed(run: RunDir, why: str) -> None:
    """An unfinished member's status becomes `failed`, with the reason; its step and its last metrics stay. One that somebody
    else trains is left alone."""
    with suppress(UserError), run.locked():
        status = run.status()
        if status.state not in FINISHED:
            run.write_status("failed", step=status.step, steps=status.steps, metrics=status.metrics, message=why)
