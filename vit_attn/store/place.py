"""Where a run's checkpoints lie: in its directory, or apart from it on another disk or in a bucket. No jax in here.

ROOT/checkpoints/STEP            one saved step
ROOT/refused_checkpoints/STEP.N  what was set aside
ROOT/config.json                 the run, so that it goes on from here where its directory is empty
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from etils import epath

from vit_attn.spec.errors import UserError
from vit_attn.spec.run import LoopSpec, RunSpec

_COMMITTED = "commit_success.txt"  # orbax writes it last, for want of an atomic rename in buckets
_DOOMED = ".deleting"


@dataclass(frozen=True)
class Place:
    """`apart`: not in the run's own directory."""

    root: epath.Path
    apart: bool

    @property
    def checkpoints(self) -> epath.Path:
        return self.root / "checkpoints"

    @property
    def refused(self) -> epath.Path:
        return self.root / "refused_checkpoints"

    @property
    def remote(self) -> bool:
        return "://" in str(self.root)

    def path(self, step: int) -> epath.Path:
        return self.checkpoints / str(step)

    def steps(self) -> list[int]:
        """The complete ones, in order."""
        return sorted(int(folder.name) for folder in self._entries() if is_step(folder) and not self._cut_short(folder))

    def set_aside(self, step: int) -> None:
        """Moves a checkpoint out of the way, to refused_checkpoints/, so that its step can be saved again. Deletes nothing."""
        self.refused.mkdir(parents=True, exist_ok=True)
        taken = {folder.name for folder in self.refused.iterdir()}
        name = next(name for number in count() if (name := f"{step}.{number}") not in taken)
        self.path(step).rename(self.refused / name)

    def delete(self, step: int) -> None:
        """Never leaves half a checkpoint that looks like a whole one."""
        folder = self.path(step)
        if self.remote:
            (folder / _COMMITTED).unlink()
        else:
            folder = folder.rename(folder.with_name(folder.name + _DOOMED))
        folder.rmtree()

    def sweep(self) -> None:
        """Deletes what kills have left: saves and deletions that were cut short."""
        for folder in self._entries():
            if ".orbax-checkpoint-tmp" in folder.name or folder.name.endswith(_DOOMED) or self._cut_short(folder):
                folder.rmtree()

    def clear(self) -> None:
        """Deletes all checkpoints of the run (--overwrite), and where they are apart, its config.json."""
        for folder in (self.checkpoints, self.refused):
            if folder.exists():
                folder.rmtree()
        if self.apart:
            (self.root / "config.json").unlink(missing_ok=True)

    def config(self) -> dict[str, Any] | None:
        """Of the run whose checkpoints are here, apart from it; None where there is none. Raises UserError."""
        file = self.root / "config.json"
        try:
            values = json.loads(file.read_text()) if self.apart and file.exists() else None
        except Exception as error:  # a bucket's errors are of many types
            raise UserError(f"config.loop.ckpt_dir: {file} cannot be read: {' '.join(str(error).split())[:300]}") from error
        if not isinstance(values, dict | None):
            raise UserError(f"config.loop.ckpt_dir: {file} is not a run's file: it holds a {type(values).__name__}")
        return values

    def claim(self, spec: RunSpec) -> None:
        """Says whose it is, where it is apart."""
        if self.apart:
            self.root.mkdir(parents=True, exist_ok=True)
            part = self.root / f".config.json.{os.getpid()}"
            part.write_text(json.dumps(dataclasses.asdict(spec), indent=1))
            part.replace(self.root / "config.json")

    def _entries(self) -> list[epath.Path]:
        return list(self.checkpoints.iterdir()) if self.checkpoints.exists() else []

    def _cut_short(self, folder: epath.Path) -> bool:
        """Elsewhere an unfinished save has another name."""
        return self.remote and is_step(folder) and not (folder / _COMMITTED).exists()


def is_step(folder: epath.Path) -> bool:
    return folder.name.isdecimal() and str(int(folder.name)) == folder.name


def place_of(run_dir: str | os.PathLike[str], loop: LoopSpec) -> Place:
    """Of the run that lives in `run_dir`."""
    if loop.ckpt_dir is None:
        return Place(absolute(run_dir), apart=False)
    return Place(absolute(loop.ckpt_dir.replace("{name}", absolute(run_dir).name)), apart=True)


def absolute(path: str | os.PathLike[str]) -> epath.Path:
    """As orbax needs it; a bucket's is as it is."""
    return epath.Path(path) if "://" in os.fspath(path) else epath.Path(Path(path).expanduser().absolute())
