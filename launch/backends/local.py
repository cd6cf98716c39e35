"""Workers as processes of this machine, each on its own share of the accelerators and the CPU cores."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launch.backends.job import Job, Task
from launch.devices import find_devices
from vit_attn.spec.run import RunSpec

WORKER = (sys.executable, "-m", "vit_attn.main")
ROOT = Path(__file__).resolve().parents[2]  # where the packages lie


@dataclass(frozen=True)
class LocalJob:
    process: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


class Local:
    """Processes, up to `max_parallel` of them, on c // max_parallel of this process's c cores each (all cores if c is less),
    and on as equal a share of its accelerators."""

    sees_files = True

    def __init__(self, max_parallel: int, worker: Sequence[str] = WORKER) -> None:
        self.worker = worker
        self.jobs: list[LocalJob | None] = [None] * max_parallel  # one a share of the cores
        self.shares = core_shares(max_parallel)
        devices = find_devices()
        self.environments = [devices.environment(ids) for ids in devices.groups(max_parallel)]

    @property
    def slots(self) -> int:
        return len(self.jobs)

    def check(self, runs: Mapping[Path, RunSpec]) -> None:
        """There is nothing that could be missing."""

    def dry_run(self, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
        """The plan says it all."""

    def attach(self, tasks: Sequence[Task]) -> dict[str, Job]:
        return {}  # workers end with their launcher

    def submit(self, tasks: Sequence[Task]) -> list[Job]:
        return [self.start(task.runs, task.log) for task in tasks]

    def start(self, runs: Sequence[Path], log: Path) -> LocalJob:
        """Raises RuntimeError if `max_parallel` workers are running."""
        free = [slot for slot, job in enumerate(self.jobs) if job is None or job.poll() is not None]
        if not free:
            raise RuntimeError(f"all {len(self.jobs)} shares of the cores are taken")
        command = [*self.worker, "--run", *map(str, runs), "--stop-with-parent", str(os.getpid()), "--alone"]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with open(log, "ab") as output, _on_cores(self.shares[free[0]]):
            output.write(f"$ {shlex.join(command)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.environments[free[0]], "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the launcher only, which passes on SIGTERM
            )
        self.jobs[free[0]] = job = LocalJob(process)
        return job


def core_shares(shares: int) -> list[set[int]]:
    """Disjoint sets of c // shares cores; where the c cores do not go round, or cannot be chosen, empty sets: all cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    size = len(cores) // shares
    return [set(cores[slot * size : (slot + 1) * size]) for slot in range(shares)]


@contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    """A process started in here inherits these cores from its first instruction on; the launcher itself returns to its own."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
