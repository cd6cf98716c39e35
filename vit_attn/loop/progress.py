"""What is known at a step, and what is printed of it: a live table on a terminal, a line elsewhere."""

from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console

from vit_attn.loop.member import Member
from vit_attn.parallel.processes import is_first, say


@dataclass(frozen=True)
class Rows:
    """The metrics of one step, a row a member."""

    step: int
    seconds_left: float  # to the last step, as an estimate
    of: list[tuple[Member, dict[str, float]]]


class Display(Protocol):
    def __enter__(self) -> "Display": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def show(self, rows: Rows) -> None:
        """Takes the newest metrics of the members that train."""

    def lost(self, member: Member, why: str) -> None:
        """Takes a member that has left, and the reason."""


def display(members: list[Member], steps: int) -> Display:
    """For the terminal that standard output is, or else for a file, a pipe, or a process that does not speak."""
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal and is_first():
        from vit_attn.loop.live_table import LiveTable

        return LiveTable(console, [member.run_dir.name for member in members], steps)
    return PlainLines(steps)


class PlainLines:
    """One line each time."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __enter__(self) -> "PlainLines":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def show(self, rows: Rows) -> None:
        say(progress_line(rows, self._steps))

    def lost(self, member: Member, why: str) -> None:
        return None


def progress_line(rows: Rows, steps: int) -> str:
    """ "step 100/250 | 2,345 images/s | loss 1.234 | ... | ETA 0:00:12 | ...": of one member, or the range over many."""
    split = "val" if any("val/accuracy" in row for _, row in rows.of) else "train"
    known = figures(rows)
    parts = [
        f"step {rows.step:>{len(str(steps))}}/{steps}",
        known.pop(0),
        _range("loss", rows, "train/loss"),
        _range(f"{split} accuracy", rows, f"{split}/accuracy"),
        eta(rows),
        *known,
    ]
    return " | ".join(parts)


def eta(rows: Rows) -> str:
    return f"ETA {timedelta(seconds=round(rows.seconds_left))}"


def figures(rows: Rows) -> list[str]:
    """["2,345 images/s", "data wait 3 %", "1.23 core-hours", "MFU 41.2 %"]: the mean over the members that train, core-hours
    their sum, MFU where it is known."""
    of = [row for _, row in rows.of]
    mean = {key: sum(row[key] for row in of) / len(of) for key in of[0] if all(key in row for row in of)}
    hours = mean["speed/core_hours"] * len(of)
    return [
        f"{mean['speed/images_per_second']:,.0f} images/s",
        f"data wait {mean['data/wait']:.0%}".replace("%", " %"),
        f"{hours:,.{1 if hours >= 10 else 3}f} core-hours",
        *([f"MFU {mean['speed/mfu'] * 100:.1f} %"] if "speed/mfu" in mean else []),
    ]


def _range(label: str, rows: Rows, key: str) -> str:
    """The value of a lone member; for a pack, the lowest and the highest, each with its member's name."""
    values = {member.run_dir.name: row[key] for member, row in rows.of}
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    if len(values) == 1:
        return f"{label} {values[low]:.3f}"
    return f"{label} {values[low]:.3f} ({low}) to {values[high]:.3f} ({high})"
