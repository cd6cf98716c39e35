"""What is known at a step, and what is printed of it."""

from dataclasses import dataclass
from datetime import timedelta

from vit_attn.loop.member import Member


@dataclass(frozen=True)
class Rows:
    """The metrics of one step, a row a member."""

    step: int
    seconds_left: float  # to the last step, as an estimate
    of: list[tuple[Member, dict[str, float]]]


def progress_line(rows: Rows, steps: int) -> str:
    """ "step 100/250 | 2,345 images/s | ETA 0:00:12 | loss 1.234 ...": of one member, or the range over many."""
    speed = sum(row["speed/images_per_second"] for _, row in rows.of) / len(rows.of)
    left = timedelta(seconds=round(rows.seconds_left))
    split = "val" if any("val/accuracy" in row for _, row in rows.of) else "train"
    parts = [
        f"step {rows.step:>{len(str(steps))}}/{steps}",
        f"{speed:,.0f} images/s",
        f"ETA {left}",
        _range("loss", rows, "train/loss"),
        _range(f"{split} accuracy", rows, f"{split}/accuracy"),
    ]
    return " | ".join(parts)


def _range(label: str, rows: Rows, key: str) -> str:
    """The value of a lone member; for a pack, the lowest and the highest, each with its member's name."""
    values = {member.run_dir.name: row[key] for member, row in rows.of}
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    if len(values) == 1:
        return f"{label} {values[low]:.3f}"
    return f"{label} {values[low]:.3f} ({low}) to {values[high]:.3f} ({high})"
