"""Which packs wait, run and are over; a pack that fails is tried once more."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGTERM

from launch.backends.job import Backend, Job
from launch.failure import reason
from launch.sweep_dir import SweepDir, all_finished
from vit_attn.store.run_dir import FINISHED, RunDir

ATTEMPTS = 2
STOPPED_CODES = (3, -SIGTERM)  # saved what there was, or there was nothing yet


@dataclass(frozen=True)
class Attempt:
    """A worker on a pack: the `number`th one, started at `started` (unix seconds), its output from byte `log_start` on."""

    pack: str
    number: int
    job: Job
    log_start: int
    started: float


class Schedule:
    """Packs of `sweep` that have a member to finish, `slots` at a time, in the order of the grid. `say` takes news."""

    def __init__(
        self,
        sweep: SweepDir,
        backend: Backend,
        slots: int,
        say: Callable[[str], None],
        packs: dict[str, list[RunDir]] | None = None,
    ) -> None:
        self.sweep, self.backend, self.slots, self.say = sweep, backend, slots, say
        self.packs = sweep.packs() if packs is None else packs
        self.waiting = deque((name, 1) for name, runs in self.packs.items() if not all_finished(runs))
        self.running: list[Attempt] = []
        self.failed: dict[str, str] = {}  # pack -> reason
        self.stopping = False

    @property
    def over(self) -> bool:
        return not self.running and not self.waiting

    def tick(self) -> None:
        """Looks at what ended since the last call, and starts what can start."""
        for attempt in list(self.running):
            code = attempt.job.poll()
            if code is not None:
                self.running.remove(attempt)
                self._ended(attempt, code)
        while self.waiting and len(self.running) < self.slots:
            self._start(*self.waiting.popleft())

    def stop(self) -> None:
        """Starts nothing more and asks every worker to save and end; go on calling `tick` until all are `over`."""
        self.stopping = True
        self.waiting.clear()
        for attempt in self.running:
            attempt.job.stop()

    def started(self) -> dict[str, float]:
        """Members whose worker is alive, with the time at which it was started (unix seconds)."""
        return {run.name: attempt.started for attempt in self.running for run in self.packs[attempt.pack]}

    def _start(self, pack: str, number: int) -> None:
        log = self.sweep.log(pack)
        log_start = log.stat().st_size if log.exists() else 0
        started = time.time()
        job = self.backend.start([run.path for run in self.packs[pack]], log)
        self.running.append(Attempt(pack, number, job, log_start, started))
        self.say(f"pack {pack}: started" + (f" (attempt {number} of {ATTEMPTS})" if number > 1 else ""))

    def _ended(self, attempt: Attempt, code: int) -> None:
        pack, runs = attempt.pack, self.packs[attempt.pack]
        if all_finished(runs):
            paused = any(run.status().state == "paused" for run in runs)
            self.say(f"pack {pack}: {'paused' if paused else 'finished'}")
        elif self.stopping and code in STOPPED_CODES:
            self.say(f"pack {pack}: stopped")
        else:
            why = reason(code, self.sweep.log(pack), attempt.log_start)
            if attempt.number < ATTEMPTS and not self.stopping:
                self.say(f"pack {pack}: failed ({why}); it will be tried once more")
                self.waiting.append((pack, attempt.number + 1))
            else:
                self.say(f"pack {pack}: failed ({why}); log: {self.sweep.log(pack)}")
                self.failed[pack] = why
                for run in runs:
                    _mark_failed(run, why)


def _mark_failed(run: RunDir, why: str) -> None:
    """An unfinished member's status becomes `failed`, with the reason; its step and its last metrics stay."""
    status = run.status()
    if status.state not in FINISHED:
        run.write_status("failed", step=status.step, steps=status.steps, metrics=status.metrics, message=why)
