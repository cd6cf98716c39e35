"""Where a sweep is launched: --backend and --max-parallel, remembered in SWEEP/launch.json."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from launch.backends import Site
from launch.backends.job import Backend
from launch.backends.options import split
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError, unknown
from vit_attn.store.run_dir import write_json


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

    def open(self, sweep: SweepDir, todo: int, backends: Mapping[str, Callable[[Site], Backend]]) -> Backend:
        """For `todo` packs; creates nothing. Raises UserError for a backend, a setting or a program that is not there."""
        name, pairs = split(self.backend)
        if name not in backends:
            raise unknown("--backend: the backend", name, backends)
        return backends[name](Site(sweep, self.max_parallel or 1 if self.shares else todo, self.max_parallel, pairs))

    def write(self, sweep: SweepDir) -> None:
        write_json(sweep.path / "launch.json", dataclasses.asdict(self))


def last_place(sweep: SweepDir) -> Place:
    """Of the newest launcher. Raises UserError where the file cannot be read."""
    file = sweep.path / "launch.json"
    try:
        return Place(**json.loads(file.read_text())) if file.exists() else Place()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): give --backend") from error
