"""Successive halving: at some shares of the steps, the worse half of the members is given up for the better one.

    --halve-at 0.25,0.5 --metric val/accuracy

Members train to the first rung (0.25 of their steps) and pause there. They are ranked by the metric as it was at that step: the
better half (rounded up) goes on to the next rung, the others end as `halved`, which is a result like `done`. A member that
diverged ranks below all others. The whole sweep is ranked together, or with --halve-within KEY,... those members that agree in
these settings. What goes on is packed anew, so that no pack runs half empty; a member's numbers do not depend on its pack, so
that they are those of a sweep that was never halved. Decisions are written down (halving.json) before they are carried out.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.estimate import Cost
from launch.grid import Grid, Member
from launch.rung_metric import check_measured
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.run import RunSpec, flat
from vit_attn.store.run_dir import FINISHED, RunDir, read_json, write_json


@dataclass(frozen=True)
class Halving:
    """`at`: rising shares of a member's steps, each above 0 and below 1. `order`: max if a higher metric is better, or min."""

    at: tuple[float, ...]
    metric: str
    order: str
    within: tuple[str, ...] = ()

    def steps(self, spec: RunSpec) -> list[int]:
        """The rungs of a member, in steps."""
        return [round(share * spec.train.steps) for share in self.at]

    def share(self) -> float:
        """Of the sweep's steps that is expected to be made, if nothing diverges and halves are even."""
        ends = [*self.at, 1.0]
        return sum((end - start) / 2**rung for rung, (start, end) in enumerate(zip([0.0, *self.at], ends, strict=True)))

    def words(self) -> str:
        among = f"members of equal {', '.join(self.within)}" if self.within else "the whole sweep"
        better = "highest" if self.order == "max" else "lowest"
        shares = ", ".join(f"{share:g}" for share in self.at)
        return f"at {shares} of the steps the worse half of {among} ends; better is the {better} {self.metric}"


def halving_of(at: str | None, metric: str | None, order: str | None, within: str | None) -> Halving | None:
    """What --halve-at, --metric, --metric-order and --halve-within say; None without the first. Raises UserError."""
    if at is None:
        given = {"--metric": metric, "--metric-order": order, "--halve-within": within}
        for flag, value in given.items():
            if value is not None:
                raise UserError(f"{flag}={value} has no meaning without --halve-at, for example --halve-at 0.25,0.5")
        return None
    try:
        shares = tuple(float(word) for word in at.split(","))
    except ValueError:
        shares = ()
    if not shares or any(not 0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise UserError(f"--halve-at={at} must be rising numbers between 0 and 1, shares of the steps: --halve-at 0.25,0.5")
    if metric is None:
        raise UserError(f"--halve-at={at} needs --metric, by which members are ranked: --metric val/accuracy")
    if order not in (None, "max", "min"):
        raise unknown("--metric-order: the value", order, ("max", "min"))
    order = order or ("min" if metric.rpartition("/")[2].endswith("loss") else "max")
    return Halving(shares, metric, order, tuple(filter(None, (within or "").split(","))))


class Rungs:
    """The halving of one sweep: what was decided so far, in its directory, and what comes next."""

    def __init__(self, halving: Halving, grid: Grid, sweep: SweepDir) -> None:
        """Raises UserError, before anything is written, for what could not be ranked, or was begun otherwise."""
        self.halving, self.grid, self.sweep = halving, grid, sweep
        for member in grid.members:
            steps = halving.steps(member.spec)
            for share, step in zip(halving.at, steps, strict=True):
                check_measured(member, halving.metric, step, share)
            if len(set(steps)) < len(steps):
                raise UserError(
                    f"--halve-at: two shares of the {member.spec.train.steps} steps of {member.name} are the same step"
                )
            for key in halving.within:
                if key not in (settings := flat(member.spec)):
                    raise unknown("--halve-within: the setting", key, settings)
        check_begun(halving, sweep)
        self.decided = [set(rung["stopped"]) for rung in self._read()]

    @property
    def stopped(self) -> set[str]:
        return set().union(*self.decided)

    def prepare(self) -> list[Member]:
        """Carries out what was decided, sets the members that go on to pause at the next rung, and returns them."""
        self._mark()
        rung, going = len(self.decided), [member for member in self.grid.members if member.name not in self.stopped]
        for member in going:
            ends = [*self.halving.steps(member.spec), member.spec.loop.until]
            loop = dataclasses.replace(member.spec.loop, until=ends[rung])
            self._run(member).create(dataclasses.replace(member.spec, loop=loop))
        return going

    @property
    def last(self) -> bool:
        """Whether no rung is left, so that members train to their end."""
        return len(self.decided) == len(self.halving.at)

    def decide(self) -> str:
        """Ranks the members that have reached the next rung, writes down which of them end, and says so."""
        rung, going = len(self.decided), [member for member in self.grid.members if member.name not in self.stopped]
        stopped: dict[str, str] = {}
        for group in self._groups(going):
            ranked = sorted(group, key=lambda member: self._badness(member, rung))  # equal ones: in the order of the grid
            stay = math.ceil(len(ranked) / 2)
            for place, member in enumerate(ranked[stay:], stay + 1):
                value = self._value(member, rung)
                shown = "diverged" if value is None else f"{self.halving.metric} {value:.4g}"
                stopped[member.name] = f"{shown}: {place} of {len(ranked)} at step {self.halving.steps(member.spec)[rung]}"
        record = {"share": self.halving.at[rung], "going": [m.name for m in going], "stopped": stopped}
        write_json(file_of(self.sweep), {"halving": dataclasses.asdict(self.halving), "rungs": [*self._read(), record]})
        self.decided.append(set(stopped))
        return f"halving at {self.halving.at[rung]:g} of the steps: {len(going) - len(stopped)} go on, {len(stopped)} end"

    def left_hours(self, costs: Mapping[str, Cost]) -> float:
        """Core-hours still to be spent, if nothing more diverges: half of each group (rounded up) passes a rung."""
        starts, ends, first = [0.0, *self.halving.at], [*self.halving.at, 1.0], len(self.decided)
        hours = 0.0
        for group in self._groups([member for member in self.grid.members if member.name not in self.stopped]):
            pass_on = len(group)
            for rung in range(first, len(ends)):
                for cost in (costs[member.name] for member in group):
                    done = 1.0 - cost.left / cost.core_hours
                    share = ends[rung] - max(done, starts[rung] if rung > first else 0.0)
                    hours += cost.core_hours * max(share, 0.0) * (pass_on / len(group)) * (cost.left > 0)
                pass_on = math.ceil(pass_on / 2)
        return hours

    def _read(self) -> list[dict[str, Any]]:
        return list((read_json(file_of(self.sweep)) or {}).get("rungs", []))

    def _run(self, member: Member) -> RunDir:
        return RunDir(self.sweep.path / member.name)

    def _mark(self) -> None:
        """The status of those that end; again, harmlessly, after a launcher was killed in between."""
        for name, why in {name: why for rung in self._read() for name, why in rung["stopped"].items()}.items():
            run = RunDir(self.sweep.path / name)
            status = run.status()
            if status.state not in FINISHED:
                run.write_status("halved", step=status.step, steps=status.steps, metrics=status.metrics, message=why)

    def _groups(self, members: Sequence[Member]) -> list[list[Member]]:
        groups: dict[tuple[str, ...], list[Member]] = {}
        for member in members:
            settings = flat(member.spec)
            groups.setdefault(tuple(repr(settings[key]) for key in self.halving.within), []).append(member)
        return list(groups.values())

    def _badness(self, member: Member, rung: int) -> float:
        value = self._value(member, rung)
        if value is None:
            return math.inf
        return -value if self.halving.order == "max" else value

    def _value(self, member: Member, rung: int) -> float | None:
        """The metric at the rung's step; None for a member that diverged. Raises UserError if it was not measured."""
        run, step = self._run(member), self.halving.steps(member.spec)[rung]
        if run.status().state == "diverged":
            return None
        row = next((row for row in reversed(run.metrics()) if row["step"] == step and self.halving.metric in row), None)
        if row is None:
            known = sorted({key for row in run.metrics() if row["step"] == step for key in row} - {"step"})
            raise unknown(f"--metric: at step {step} of {run.path} the metric", self.halving.metric, known)
        return float(row[self.halving.metric])


def file_of(sweep: SweepDir) -> Path:
    return sweep.path / "halving.json"


def check_begun(halving: Halving | None, sweep: SweepDir) -> None:
    """Raises UserError if members of the sweep were ranked by another halving than this one."""
    file = file_of(sweep)
    there = (read_json(file) or {}).get("halving")
    here = None if halving is None else json.loads(json.dumps(dataclasses.asdict(halving)))
    if there is not None and there != here:
        flags = f"--halve-at {','.join(f'{share:g}' for share in there['at'])} --metric {there['metric']}"
        flags += f" --metric-order {there['order']}"
        flags += f" --halve-within {','.join(there['within'])}" if there["within"] else ""
        raise UserError(f"{sweep.path} was begun with {flags}: say the same, or take another --workdir")
