"""What a sweep's own file says about its members: who they are, and which log their pack writes. Reading only."""

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SweepFile:
    """`members`: the pack of each, in order; empty where no sweep lives."""

    path: Path
    members: dict[str, str] = field(default_factory=dict)

    def log(self, member: str) -> Path | None:
        """What the member's worker printed; None where there is no such file."""
        file = self.path / "logs" / f"{self.members.get(member)}.log"
        return file if member in self.members and file.exists() else None


def read_sweep(path: Path) -> SweepFile:
    """sweep.json of the directory `path`. One that cannot be read says nothing: the runs speak for themselves."""
    try:
        packs = json.loads((path / "sweep.json").read_text())["packs"]
        return SweepFile(path, {member["name"]: pack["name"] for pack in packs for member in pack["members"]})
    except (OSError, ValueError, KeyError, TypeError):
        return SweepFile(path)
