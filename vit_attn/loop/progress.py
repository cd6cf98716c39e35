"""What a run prints while it trains."""

from datetime import timedelta


def progress_line(step: int, steps: int, seconds_left: float, rows: dict[str, dict[str, float]]) -> str:
    """ "step 100/250 | 2,345 images/s | ETA 0:00:12 | loss 1.234 ...": of one member, or of the best and worst of many."""
    speed = sum(row["speed/images_per_second"] for row in rows.values()) / len(rows)
    head = f"step {step:>{len(str(steps))}}/{steps} | {speed:,.0f} images/s | ETA {timedelta(seconds=round(seconds_left))}"
    return f"{head} | {_spread('loss', rows, 'train/loss')}{_accuracy(rows)}"


def _accuracy(rows: dict[str, dict[str, float]]) -> str:
    split = "val" if any("val/accuracy" in row for row in rows.values()) else "train"
    return f" | {_spread(f'{split} accuracy', rows, f'{split}/accuracy')}"


def _spread(label: str, rows: dict[str, dict[str, float]], key: str) -> str:
    values = {name: row[key] for name, row in rows.items() if key in row}
    if len(values) == 1:
        return f"{label} {next(iter(values.values())):.3f}"
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return f"{label} {values[low]:.3f} ({low}) to {values[high]:.3f} ({high})"
