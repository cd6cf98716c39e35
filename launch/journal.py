"""What became of a pack's jobs on a cluster: SWEEP/jobs/PACK.jsonl, which only the worker of that pack writes.

{"event": "start", "submission": ..., "time": unix seconds, "host": ...}
{"event": "end", "submission": ..., "time": ..., "code": exit code, "asked": whether launch.stop asked for it}
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    file: Path

    def write(self, event: str, submission: str, **values: Any) -> None:
        """Appends a record. A disk that takes no more must not end what it is about: then it is printed only."""
        row = json.dumps({"event": event, "submission": submission, "time": time.time(), **values})
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.file, "a") as handle:
                handle.write(f"\n{row}\n" if self._cut_short() else f"{row}\n")
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            print(f"note: {self.file} could not be written: {error}: {row}", flush=True)

    def read(self) -> list[Record]:
        """In order; lines that a kill or a full disk cut short are left out."""
        try:
            lines = self.file.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [record for line in lines if (record := _parsed(line))]

    def _cut_short(self) -> bool:
        with open(self.file, "rb") as handle:
            return handle.seek(0, 2) > 0 and handle.seek(-1, 2) >= 0 and handle.read() != b"\n"


def newest(records: list[Record], submission: str) -> Record | None:
    """The last record of a submission."""
    return next((record for record in reversed(records) if record["submission"] == submission), None)


def interruptions(records: list[Record]) -> int:
    """How often a cluster took a pack's node away: starts that ended in a signal, or never, and that another one followed."""
    count, before = 0, None
    for record in records:
        if record["event"] == "start" and before is not None:
            lost = before["event"] == "start" or (before["code"] == 3 and not before["asked"])
            count += lost
        before = record
    return count


def _parsed(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"event", "submission", "time"} <= record.keys() else None
