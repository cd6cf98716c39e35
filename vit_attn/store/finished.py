"""The finished runs in a directory: a run's own, or a sweep's."""

import sys
from pathlib import Path

from vit_attn.spec.errors import UserError
from vit_attn.store.run_dir import RunDir
from vit_attn.store.writable import check_local


def done_members(path: Path, named: str) -> list[RunDir]:
    """Of a directory of runs those that are done; the others are named on stderr. Raises UserError, which calls the directory
    `named`, where there is none."""
    check_local(path, named)
    runs = [RunDir(config.parent) for config in sorted(path.glob("*/config.json"))]
    if not runs:
        raise UserError(f"{named} holds no run: neither it nor a directory in it has a config.json")
    states = {run: run.status().seen_state() for run in runs}
    done = [run for run in runs if states[run] == "done"]
    if not done:
        raise UserError(f"{named} has no member that is done: they are {', '.join(sorted(set(states.values())))}")
    for run in runs:
        if run not in done:
            print(f"note: {run.path} is left out: {states[run]}", file=sys.stderr)
    return done
