"""Where a sweep is launched: --backend and --max-parallel, remembered in SWEEP/launch.json."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launch.backends import Site
from launch.backends.job import Backend, BusyError, Task, task_of
from launch.backends.options import split
from launch.submissions import Submissions
from launch.sweep_dir import SweepDir, all_finished, some
from vit_attn.spec.errors import RunError, UserError, unknown
from vit_attn.store.run_dir import RunDir, write_json

Backends = Mapping[str, Callable[[Site], Backend]]


@dataclass(frozen=True)
class Place:
    """As on the command line: "slurm:partition=gpu", and None where nobody said how many packs at a time.

    `shares`: whether devices are shared out to `max_parallel` processes even where fewer packs are left.
    """

    backend: str = "local"
    max_parallel: int | None = None
    shares: bool = False

    @property
    def name(self) -> str:
        return split(self.backend)[0]

    def open(self, sweep: SweepDir, todo: int, backends: Backends) -> Backend:
        """For `todo` packs; creates nothing. Raises UserError for a backend, a setting or a program that is not there."""
        name, pairs = split(self.backend)
        if name not in backends:
            raise unknown("--backend: the backend", name, backends)
        return backends[name](Site(sweep, (self.max_parallel or 1) if self.shares else todo, self.max_parallel, pairs))

    def check(self, sweep: SweepDir, packs: Mapping[str, Sequence[RunDir]], backends: Backends) -> None:
        """Raises UserError for what `open` does, and for runs that could not live there, or a program that is missing here."""
        specs = {run.path: spec for runs in packs.values() for run in runs if (spec := run.spec()) is not None}
        self.open(sweep, len(packs), backends).check(specs)

    def write(self, sweep: SweepDir) -> None:
        write_json(_file(sweep), dataclasses.asdict(self))

    @contextmanager
    def recorded(self, sweep: SweepDir) -> Iterator[None]:
        """From here on launch.json names this place; after a UserError what it named before, if nothing was taken here."""
        file, submissions = _file(sweep), Submissions(sweep.path)
        before = file.read_bytes() if file.exists() else None
        known = [one.name for one in submissions.read()]
        self.write(sweep)
        try:
            yield
        except UserError:
            if [one.name for one in submissions.read()] == known:
                file.unlink() if before is None else file.write_bytes(before)
            raise


def last_place(sweep: SweepDir) -> Place:
    """Of the newest launcher. Raises UserError where the file cannot be read."""
    file = _file(sweep)
    try:
        return Place(**json.loads(file.read_text())) if file.exists() else Place()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): delete it, and say --backend once more") from error


def check_elsewhere(sweep: SweepDir, place: Place, backends: Backends, tasks: Sequence[Task] | None = None) -> None:
    """Before a launcher of `tasks` at `place` begins, and with the lock held. Raises UserError if jobs of the last launcher are
    at work that this one would not see, being of other packs or in another place; RunError where nobody knows.

    `tasks` is None where the sweep's packs stay as they are.
    """
    there = last_place(sweep)
    if there.name == "local" or not sweep.file.exists():
        return  # workers of this machine end with their launcher
    submitted = {pack for one in Submissions(sweep.path).read() if one.backend == there.name for pack in one.packs}
    packs = {pack: runs for pack, runs in sweep.packs().items() if pack in submitted and not all_finished(runs)}
    old = [task_of(sweep, pack, runs) for pack, runs in packs.items()]
    tasks = old if tasks is None else tasks
    if there.backend == place.backend:
        old = [task for task in old if task not in tasks]
    if not old:
        return
    try:
        hidden = set(there.open(sweep, len(old), backends).attach(old))
        if hidden and there.name == place.name:
            same = [task for task in old if task in tasks]
            hidden -= set(place.open(sweep, len(old), backends).attach(same))
    except BusyError as busy:
        raise RunError(f"{busy}: ask again, or go on with --backend {there.backend} and the same packs") from busy
    except UserError as error:
        words = f"jobs of this sweep may be at work on {there.name}, where it was launched last, but {error}"
        raise UserError(f"{words}. If none is, delete {_file(sweep)}") from error
    if hidden:
        raise UserError(
            f"jobs are at work in packs {some(sorted(hidden))} of --backend {there.backend}: say that and the same --pack as "
            f"before, or end them first: python -m launch.stop {sweep.path}"
        )


def _file(sweep: SweepDir) -> Path:
    return sweep.path / "launch.json"
