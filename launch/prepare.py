"""From a sweep's members to what will be started: packs, devices, rungs, what it costs; nothing is created here."""

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from launch.consent import confirm
from launch.devices import Devices, find_devices
from launch.estimate import Cost, Rate, choose_rate, costs, statuses_of
from launch.grid import Grid
from launch.halving import Rungs, check_begun
from launch.launcher import Stage
from launch.packing import cut
from launch.place import Place
from launch.plan import Plan, make_plan
from launch.plan_table import hours_of, print_plan
from launch.sweep_dir import SweepDir
from launch.sweep_flags import MANY_MEMBERS, halving_flags, wish_of
from vit_attn.spec.errors import UserError
from vit_attn.store.run_dir import RunDir, read_json, write_json


@dataclass(frozen=True)
class Prepared:
    """`groups`: members that could be one pack, together; `packed`: the packs that they are cut into."""

    groups: Grid
    packed: Grid
    plan: Plan
    rungs: Rungs | None
    rate: Rate
    costs: dict[str, Cost]

    @property
    def left(self) -> float:
        """Core-hours still to be spent; with halving, those that are expected to be."""
        return sum(cost.left for cost in self.costs.values()) if self.rungs is None else self.rungs.left_hours(self.costs)

    def print(self, console: Console, ask_above: float) -> None:
        halving = self.rungs.halving if self.rungs else None
        print_plan(console, self.packed, self.plan, self.rate, self.costs, self.left, halving)
        if self.left > ask_above:
            words = f"more than --ask-above {ask_above:g} core-hours: a start asks first, or wants --yes"
            console.print(words, highlight=False)

    def confirm_cost(self, ask_above: float, yes: bool) -> None:
        """Raises UserError if it is more than the user agrees to."""
        if self.left > ask_above:
            what = f"this sweep takes about {hours_of(self.left)} core-hours, more than --ask-above {ask_above:g}"
            confirm(f"{what} ({self.rate.words})", yes)

    def remember(self, sweep: SweepDir) -> None:
        """What programs were asked, so that the next start need not."""
        if self.plan.measured:
            write_json(sweep.path / "plan.json", self.plan.measured)

    def place(self, wanted: Place) -> Place:
        """Where it is launched, with the number of packs at a time that was planned."""
        return dataclasses.replace(wanted, max_parallel=self.plan.slots, shares=self.plan.fixed)

    def stages(self, sweep: SweepDir) -> Iterator[Stage]:
        """One stage, or one a rung."""
        why = [f"plan: {line}" for line in self.plan.why]
        if self.rungs is None:
            yield Stage(why, _directories(self.packed, sweep))
            return
        news = [*why, f"halving: {self.rungs.halving.words()}"]
        while True:
            going = {member.name for member in self.rungs.prepare()}
            yield Stage(news, _directories(cut(self.groups, self.plan.sizes, going), sweep))
            if self.rungs.last:
                return
            news = [self.rungs.decide()]


def prepare(grid: Grid, sweep: SweepDir, flags: argparse.Namespace, place: Place, console: Console) -> Prepared:
    """Raises UserError for what the flags ask for and cannot be."""
    halving, local = halving_flags(flags), place.name == "local"
    if halving is not None and not local:
        raise UserError(f"--halve-at={flags.halve_at} needs packs that change on the way: --backend local, not {place.name}")
    check_begun(halving, sweep)
    rungs = None if halving is None else Rungs(halving, grid, sweep)
    devices = find_devices() if local else None
    statuses = statuses_of(grid, sweep)
    rate = choose_rate(grid, statuses, devices or Devices(), flags.device, flags.mfu, flags.step_ms, flags.step_devices)
    file = sweep.path / "plan.json"
    try:
        known = read_json(file) or {}
    except UserError:  # what was measured once can be measured again
        known = {}
    plan = make_plan(grid, wish_of(flags), devices, known, lambda news: console.print(news, highlight=False))
    return Prepared(grid, cut(grid, plan.sizes), plan, rungs, rate, costs(grid, rate, statuses))


def confirm_members(count: int, yes: bool) -> None:
    """Before so many members are resolved. Raises UserError if there are more than the user agrees to."""
    if count > MANY_MEMBERS:
        confirm(f"this sweep has {count:,} members, more than {MANY_MEMBERS:,}", yes, "make the grid smaller, or ")


def _directories(grid: Grid, sweep: SweepDir) -> dict[str, list[RunDir]]:
    return {pack.name: [RunDir(sweep.path / member.name) for member in pack.members] for pack in grid.packs}
