"""The directory of a sweep: everything about it, as plain files.

sweep.json   id, config, overrides, packs, their members      logs/<pack>.log   what the workers printed
<member>/    the run directory of each member                .lock             held by the launcher that works here
launch.json  where it was launched last                      stop              there, if launch.stop asked all to end
plan.json    what compiled programs said of their memory     halving.json      with --halve-at: who ended at which rung
stage.json   packs of the present rung, where they are not those of sweep.json
On a cluster: submissions/ what was handed to it, jobs/ what became of each pack, slurm/ what Slurm itself printed.
"""

import dataclasses
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from launch.grid import Grid
from launch.journal import Journal
from vit_attn.spec.errors import UserError
from vit_attn.store.run_dir import FINISHED, RunDir, differences, file_lock, write_json
from vit_attn.store.writable import check_writable

SHOWN = 4  # names in an error message


class AtWorkError(UserError):
    """Another launcher is at work in the sweep's directory."""


@dataclass(frozen=True)
class SweepDir:
    path: Path

    @property
    def file(self) -> Path:
        return self.path / "sweep.json"

    def log(self, pack: str) -> Path:
        return self.path / "logs" / f"{pack}.log"

    def journal(self, pack: str) -> Journal:
        return Journal(self.path / "jobs" / f"{pack}.jsonl")

    @property
    def stop_file(self) -> Path:
        return self.path / "stop"

    @property
    def id(self) -> str:
        """What a cluster and a bucket call this sweep and no other, grid-1f3a9c07: drawn when it was created, so that one that
        was deleted and made anew is another. Until then, or if it is older than that, it goes by its path."""
        path = self.path.absolute()
        drawn = self._read().get("id") if self.file.exists() else None
        return str(drawn or f"{_slug(path.name)}-{crc32(os.fsencode(path)) & 0xFFFFFF:06x}")

    def packs(self) -> dict[str, list[RunDir]]:
        """The members of each pack, in order. Raises UserError where no sweep lives."""
        if not self.file.is_file():
            raise UserError(f"{self.path} is not the directory of a sweep: it holds no sweep.json")
        try:
            packs = self._read()["packs"]
            return {pack["name"]: [RunDir(self.path / member["name"]) for member in pack["members"]] for pack in packs}
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.file} is not a sweep's file: {type(error).__name__}: {error}") from error

    def packs_at_work(self) -> dict[str, list[str]]:
        """The names of the members of each pack that a launcher trained last, under which its log goes.

        While a sweep is halved, these are not the packs of sweep.json.
        """
        try:
            return {pack: list(names) for pack, names in json.loads(self._stage_file.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):  # none is there, or a damaged one
            return _names_of(self.packs())

    def begin_stage(self, packs: Mapping[str, list[RunDir]]) -> None:
        """Writes `packs_at_work`."""
        if (names := _names_of(packs)) != self.packs_at_work():
            write_json(self._stage_file, names)

    def check(self, grid: Grid) -> None:
        """Raises UserError, naming members and settings, if anything else lives here or nothing can be written here."""
        check_writable(self.path)
        if (self.path / "config.json").exists():
            raise UserError(f"{self.path} holds a single run, not a sweep: take another --workdir")
        found = [*self._other_members(grid), *self._other_settings(grid)]
        if found:
            raise UserError(f"{self.path} holds another sweep: {'; '.join(found)}. Take another --workdir")

    def create(self, grid: Grid) -> None:
        """Writes what is not there yet: sweep.json (anew if the packs are others now), and the config.json of every member."""
        self.log("").parent.mkdir(parents=True, exist_ok=True)
        packs = {pack.name: [member.name for member in pack.members] for pack in grid.packs}
        if not self.file.exists() or _names_of(self.packs()) != packs:
            drawn = self.id if self.file.exists() else f"{_slug(self.path.absolute().name)}-{secrets.token_hex(4)}"
            write_json(self.file, {"id": drawn, **_as_json(grid)})
        for member in grid.members:
            RunDir(self.path / member.name).create(member.spec)

    @contextmanager
    def locked(self, wait_seconds: float = 1.0) -> Iterator[None]:
        """Makes the directory and keeps a second launcher out of it. Raises AtWorkError if one is at work."""
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                held = f"another launcher is at work in {self.path}"
                stack.enter_context(file_lock(self.path / ".lock", held, wait_seconds))
            except UserError as error:
                raise AtWorkError(str(error)) from error
            yield

    def at_work(self) -> bool:
        """Whether a launcher holds the lock."""
        try:
            with self.locked(wait_seconds=0.0):
                return False
        except AtWorkError:
            return True

    @property
    def _stage_file(self) -> Path:
        return self.path / "stage.json"

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self.file.read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.file} is not a sweep's file: {type(error).__name__}: {error}. Restore it, or delete it: the command "
                "that launched the sweep writes it again"
            ) from error
        if not isinstance(values, dict):
            raise UserError(f"{self.file} is not a sweep's file: it holds a {type(values).__name__}")
        return values

    def _other_members(self, grid: Grid) -> list[str]:
        if not self.file.exists():
            return []
        there = [run.name for runs in self.packs().values() for run in runs]
        here = [member.name for member in grid.members]
        gone, new = [n for n in there if n not in here], [n for n in here if n not in there]
        return [f"only {where}: {some(names)}" for where, names in (("there", gone), ("here", new)) if names]

    def _other_settings(self, grid: Grid) -> list[str]:
        """ "config.train.steps: 250 there, 20 here (in relu_alpha0.0_p7_seed0 and 16 more)" for each such setting."""
        differing: dict[str, list[str]] = {}
        for member in grid.members:
            run = RunDir(self.path / member.name)
            try:
                old = run.spec()
            except UserError as error:
                raise UserError(f"{error}. Restore it, or take another --workdir") from error
            if old is not None:
                for difference in differences(dataclasses.asdict(old), dataclasses.asdict(member.spec)):
                    differing.setdefault(difference, []).append(member.name)
        return [f"{difference} (in {some(names)})" for difference, names in differing.items()]


def all_finished(runs: list[RunDir]) -> bool:
    """Whether a worker would find nothing to do: all are finished, or paused as their config says."""
    return all(_is_over(run) for run in runs)


def _is_over(run: RunDir) -> bool:
    status = run.status()
    if status.state != "paused":
        return status.state in FINISHED
    spec = run.spec()
    return spec is not None and status.over(spec.loop.until)


def _names_of(packs: Mapping[str, list[RunDir]]) -> dict[str, list[str]]:
    return {pack: [run.name for run in runs] for pack, runs in packs.items()}


def some(names: list[str]) -> str:
    """The first few, for a message."""
    more = len(names) - SHOWN
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:SHOWN])} and {more} more"


def _slug(name: str) -> str:
    """At most 20 lower-case letters, digits and dashes: what every cluster takes as a name."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())[:20].strip("-") or "x"


def _as_json(grid: Grid) -> dict[str, object]:
    packs = [
        {"name": pack.name, "members": [{"name": m.name, "config": m.config, "overrides": m.overrides} for m in pack.members]}
        for pack in grid.packs
    ]
    return {"config": grid.config, "overrides": grid.overrides, "packs": packs}
