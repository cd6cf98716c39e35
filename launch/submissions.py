"""What was handed to a cluster: SWEEP/submissions/NAME.json, one file a submission, which only the launcher writes.

It is written before the cluster is asked, without ids, and again with them. So a launcher that was killed in between looks for
NAME in the cluster's queue instead of submitting twice.
"""

import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from vit_attn.store.run_dir import write_json


@dataclass(frozen=True)
class Submission:
    """`ids`: what the cluster calls each pack's job; None until it has answered. `time`: unix seconds."""

    name: str
    backend: str
    packs: tuple[str, ...]
    ids: dict[str, str] | None = None
    time: float = field(default_factory=time.time)


class Submissions:
    """All of a sweep, oldest first."""

    def __init__(self, sweep: Path) -> None:
        self.folder = sweep / "submissions"
        self.sweep = sweep

    def next(self, backend: str, packs: list[str]) -> Submission:
        """As the next one will be: its name is that of no other, vit-GRID-1f3a9c-2. Creates nothing."""
        path = self.sweep.absolute()
        here = f"{crc32(os.fsencode(path)) & 0xFFFFFF:06x}"
        return Submission(f"vit-{_slug(path.name)}-{here}-{len(self.read()) + 1}", backend, tuple(packs))

    def new(self, backend: str, packs: list[str]) -> Submission:
        """The next one, on the disk before anybody is asked."""
        self.folder.mkdir(exist_ok=True)
        made = self.next(backend, packs)
        self.write(made)
        return made

    def write(self, submission: Submission) -> None:
        write_json(self.folder / f"{submission.name}.json", dataclasses.asdict(submission))

    def read(self) -> list[Submission]:
        found = []
        for file in self.folder.glob("*.json"):
            values = json.loads(file.read_text())
            found.append(Submission(**{**values, "packs": tuple(values["packs"])}))
        return sorted(found, key=lambda one: one.time)

    def newest_of_packs(self) -> dict[str, Submission]:
        return {pack: one for one in self.read() for pack in one.packs}


def _slug(name: str) -> str:
    """At most 20 lower-case letters, digits and dashes: what every cluster takes as a name."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())[:20].strip("-") or "x"
