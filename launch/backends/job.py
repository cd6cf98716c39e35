"""What the launcher asks of a place where packs are trained."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from launch.sweep_dir import SweepDir
from vit_attn.spec.run import RunSpec
from vit_attn.store.run_dir import RunDir

TAKEN_AWAY = os.EX_TEMPFAIL  # the exit code of a job that its cluster ended, for a job of more weight or a node that failed


class BusyError(Exception):
    """A place takes no jobs just now (a quota, a network, a controller that restarts): worth another try in a while."""


@dataclass(frozen=True)
class Task:
    """One pack to train: the run directories of its members, and the file to which all that is printed is appended."""

    pack: str
    runs: tuple[Path, ...]
    log: Path


def task_of(sweep: SweepDir, pack: str, runs: Sequence[RunDir]) -> Task:
    return Task(pack, tuple(run.path for run in runs), sweep.log(pack))


class Job(Protocol):
    """One task at work, or waiting for it in a cluster's queue."""

    def poll(self) -> int | None:
        """Its exit code, negative for the signal that killed it; None until it is over. A job that its cluster ended and
        puts back into the queue is not over; TAKEN_AWAY if it has to be submitted anew."""

    def stop(self) -> None:
        """Asks it to save and to end, or takes it out of the queue; does not wait."""


class Backend(Protocol):
    sees_files: bool  # whether its machines have the files of this one, so that data sets can be looked for here

    @property
    def slots(self) -> int | None:
        """How many jobs it takes at a time; None where a queue of its own decides."""

    def check(self, runs: Mapping[Path, RunSpec]) -> None:
        """Raises UserError for runs that could not live there, or a program that is missing here. Creates nothing."""

    def dry_run(self, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
        """Says exactly what would be submitted. Creates nothing."""

    def attach(self, tasks: Sequence[Task]) -> dict[str, Job]:
        """The jobs of an earlier launcher, or of a submission whose answer was lost, that may still be at work, by pack.

        Submits nothing. Raises BusyError where nobody knows, UserError where a program is missing here.
        """

    def submit(self, tasks: Sequence[Task]) -> list[Job]:
        """Starts or queues a job for each task, or for as many of the first ones as are taken.

        Raises BusyError if none was taken, UserError if none will be.
        """
