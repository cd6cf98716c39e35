"""The numbers of a chart and of its tables as CSV files, unrounded."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vit_attn.report.series import Chart, Drawing, Series

HOURS_FROM = "speed/core_hours of status.json: training time x devices, a pack's shared out among its members"


def write_chart_csv(drawing: Drawing, folder: Path) -> list[Path]:
    """NAME.csv, and a file for each table that has rows (a figure that is a table has only NAME.csv). Returns the files."""
    if not isinstance(drawing, Chart):
        return [_write(folder / f"{drawing.name}.csv", table.head, table.rows) for table in drawing.tables]
    head = ["panel", "y", "series", drawing.x, "mean", "std", "seeds", "diverged", "size", "members"]
    hours = drawing.x == "core_hours"
    body = [
        [panel.title, panel.y_label, *line, *([HOURS_FROM] if hours else [])]
        for panel in drawing.panels
        for series in panel.series
        for line in _lines(series)
    ]
    files = [_write(folder / f"{drawing.name}.csv", [*head, *(["core_hours_from"] if hours else [])], body)]
    return files + [_write(folder / f"{table.name}.csv", table.head, table.rows) for table in drawing.tables if table.rows]


def _lines(series: Series) -> Iterable[list[Any]]:
    """One for each x, in order: also for one at which all members diverged."""
    points = {point.x: point for point in series.points}
    for x in sorted({*points, *series.diverged}, key=lambda x: -1e300 if x is None else x):
        point, bad = points.get(x), int(x in series.diverged)
        if point is None:
            yield [series.label, x, None, None, 0, bad, "", ""]
        else:
            yield [series.label, x, point.mean, point.std, len(point.values), bad, point.mark, " ".join(point.names)]


def _write(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with open(file, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(head)
        writer.writerows(rows)
    return file
