"""What was handed to a cluster: SWEEP/submissions/NAME.json, one file a submission, which only the launcher writes.

It is written before the cluster is asked, without ids, and again with them. So a launcher that was killed in between, or whose
answer was lost, looks for NAME in the cluster's queue instead of submitting twice. One that was refused is deleted.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path

from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError
from vit_attn.store.run_dir import read_json, write_json


@dataclass(frozen=True)
class Submission:
    """`ids`: what the cluster calls the jobs of those packs that it took; None until it has answered. `time`: unix seconds."""

    name: str
    backend: str
    packs: tuple[str, ...]
    ids: dict[str, str] | None = None
    time: float = field(default_factory=time.time)

    def may_hold(self, pack: str) -> bool:
        """Whether the cluster has taken this pack, as far as it has answered."""
        return pack in (self.packs if self.ids is None else self.ids)


class Submissions:
    """All of a sweep, oldest first."""

    def __init__(self, sweep: Path) -> None:
        self.folder = sweep / "submissions"
        self.sweep = SweepDir(sweep)

    def next(self, backend: str, packs: list[str]) -> Submission:
        """As the next one will be: its name is that of no other, vit-GRID-1f3a9c07-2. Creates nothing."""
        number = max((int(one.name.rpartition("-")[2]) for one in self.read()), default=0) + 1
        return Submission(f"vit-{self.sweep.id}-{number}", backend, tuple(packs))

    def new(self, backend: str, packs: list[str]) -> Submission:
        """The next one, on the disk before anybody is asked."""
        self.folder.mkdir(exist_ok=True)
        made = self.next(backend, packs)
        self.write(made)
        return made

    def write(self, submission: Submission) -> None:
        write_json(self._file(submission), dataclasses.asdict(submission))

    def delete(self, submission: Submission) -> None:
        """Of one that no cluster has: the next one may have its name."""
        self._file(submission).unlink(missing_ok=True)

    def read(self) -> list[Submission]:
        found = []
        for file in self.folder.glob("*.json"):
            values = read_json(file) or {}
            try:
                found.append(Submission(**{**values, "packs": tuple(values["packs"])}))
            except (KeyError, TypeError) as error:
                raise UserError(f"{file} is not a submission's file ({error}): look for its jobs, and delete it") from error
        return sorted(found, key=lambda one: one.time)

    def newest_of_packs(self) -> dict[str, Submission]:
        return {pack: one for one in self.read() for pack in one.packs if one.may_hold(pack)}

    def _file(self, submission: Submission) -> Path:
        return self.folder / f"{submission.name}.json"
