"""The table of --dry-run: members by pack, steps, core-hours, bytes, and what it all comes to."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch.estimate import Cost, Rate
from launch.grid import Grid, Member
from launch.halving import Halving
from launch.plan import Plan
from vit_attn.spec.size import parameter_count

MOST_ROWS = 500  # members that are listed
FILE_WIDTH = 400  # characters


def print_plan(
    console: Console, grid: Grid, plan: Plan, rate: Rate, costs: Mapping[str, Cost], left: float, halving: Halving | None
) -> None:
    roomy = (
        console if console.is_terminal else Console(file=console.file, width=FILE_WIDTH)
    )  # one line a member, to be searched
    roomy.print(plan_table(grid, costs))
    for line in (*plan.why, *total_lines(grid, plan, rate, costs, left, halving)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def plan_table(grid: Grid, costs: Mapping[str, Cost]) -> Table:
    """A line a pack, and below it a line a member with the run that it is."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("pack and members", no_wrap=True)
    for head in ("parameters", "steps", "core-hours", "storage"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("run", overflow="fold")
    room = MOST_ROWS
    for pack in grid.packs:
        first, of = pack.members[0].spec, [costs[member.name] for member in pack.members]
        hours, stored = hours_of(sum(one.core_hours for one in of)), bytes_of(sum(one.stored for one in of))
        count = f"{len(of)} member{'s' if len(of) > 1 else ''}"
        parameters = f"{parameter_count(first.model):,}"
        table.add_row(pack.name, parameters, f"{first.train.steps:,}", hours, stored, count, style="bold")
        for member, cost in list(zip(pack.members, of, strict=True))[:room]:
            table.add_row(f"  {member.name}", "", "", hours_of(cost.core_hours), bytes_of(cost.stored), Text(run_of(member)))
        room = max(room - len(of), 0)
    if len(costs) > MOST_ROWS:
        table.add_row(f"... {MOST_ROWS:,} of {len(costs):,} members are listed")
    return table


def total_lines(
    grid: Grid, plan: Plan, rate: Rate, costs: Mapping[str, Cost], left: float, halving: Halving | None
) -> Sequence[str]:
    """Totals, and where they come from. `left`: core-hours still to be spent."""
    whole = sum(cost.core_hours for cost in costs.values())
    lines = [
        f"{len(costs):,} members in {len(grid.packs):,} packs" + (f", {plan.slots} at a time" if plan.slots else ""),
        f"core-hours: {hours_of(whole)} in all, {hours_of(left)} still to be spent; {rate.words}",
        "that is training; evaluation, saving, compiling and waiting for data come on top",
        f"storage: {bytes_of(sum(cost.stored for cost in costs.values()))} of checkpoints (parameters and moments) when all is "
        "finished, and one more of each member at work",
    ]
    halved = [] if halving is None else [f"halving: {halving.words()}; about {halving.share():.2f} of all steps are made"]
    return [*lines, *halved]


def run_of(member: Member) -> str:
    """The words that python -m vit_attn.main takes for it."""
    return member.config + "".join(f" --config.{key}={value}" for key, value in member.overrides.items())


def hours_of(hours: float) -> str:
    """ "12,345", "12.3" or "0.0123"."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:,.1f}" if hours >= 10 else f"{hours:.3g}"


def bytes_of(size: float) -> str:
    """ "1.6 MB", in powers of 1000."""
    units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")]
    unit, name = next((one for one in units if size >= one[0]), (1.0, "bytes"))
    return f"{size / unit:,.1f} {name}"
