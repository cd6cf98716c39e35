"""Rows -> the points of series and the panels of charts."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from vit_attn.report.collect import Row
from vit_attn.report.metric import Metric
from vit_attn.report.series import Point, Series
from vit_attn.report.table import state_of
from vit_attn.report.varied import varied_within, words_of

Key = TypeVar("Key", bound=Hashable)


class Line(NamedTuple):
    """Which line a run belongs to: see report.series.Series."""

    label: str
    kin: str
    variant: str = ""


def grouped(rows: Iterable[Row], key_of: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key_of(row), []).append(row)
    return groups


def line_of(row: Row) -> Line:
    return Line(row.h, row.h)


def place_of(row: Row) -> tuple[str, str]:
    """The data set and the size, for each of which the papers have a panel."""
    return row.dataset, row.size


def place_order(place: tuple[str, str]) -> tuple[str, str, int]:
    """By data set, size and patch, the largest patch first: S/32, S/16, S/8. The larger data set is named first."""
    size, _, patch = place[1].partition("/")
    rank = {"imagenet21k": " 0", "imagenet2012": " 1"}.get(place[0], place[0])
    return rank, size, -int(patch)


def names_of(rows: Sequence[Row], label_of: Callable[[Row], str]) -> Callable[[Row], str]:
    """`label_of`, with the data set and size before it where there are several, and the norm of patches behind it."""
    several = len({place_of(row) for row in rows}) > 1

    def name(row: Row) -> str:
        place = f"{row.dataset} {row.size}: " if several else ""
        return place + label_of(row) + ("" if row.settings["model.patch_norm"] == "none" else " + patch norm")

    return name


def with_others(rows: Sequence[Row], lines: dict[Path, Line], place: Callable[[Row], Hashable]) -> dict[Path, Line]:
    """`lines`, by the run's directory, each told apart by whatever else varies among its runs in one place: seeds are averaged,
    learning rates are not."""
    others = varied_within(rows, lambda row: (place(row), lines[row.path].label))
    if not others:
        return lines
    new = {}
    for row in rows:
        line, words = lines[row.path], words_of(row, others)
        label, kin = (", ".join(filter(None, (name, words))) for name in (line.label, line.kin))
        new[row.path] = Line(label, kin, line.variant)
    return new


def alpha_series(rows: Sequence[Row], lines: dict[Path, Line], metric: Metric) -> tuple[Series, ...]:
    """A series for each line, x being alpha, variants of one kin side by side. Without alpha it is a level."""
    found = []
    for line, group in grouped(rows, lambda row: lines[row.path]).items():
        points = [point(of, metric, alpha) for alpha, of in grouped(group, lambda row: row.alpha).items()]
        diverged = sorted({row.alpha for row in group if row.state == "diverged" and row.alpha is not None})
        known = sorted((p for p in points if p is not None), key=lambda p: p.x or 0.0)
        reference = group[0].alpha is None
        found.append(Series(line.label, tuple(known), tuple(diverged), reference, line.kin, line.variant))
    kins = [series.kin for series in found]
    return tuple(sorted(found, key=lambda series: (kins.index(series.kin), series.variant)))


def point(rows: Sequence[Row], metric: Metric, x: float | None, mark: str = "") -> Point | None:
    """The runs' values; None if none of them is done."""
    known = [(row.name, value) for row in rows if (value := metric.of(row)) is not None]
    return Point(x, tuple(value for _, value in known), tuple(name for name, _ in known), mark) if known else None


def missing(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[str, ...]:
    """A line for each run that is not done (one that diverged is marked at its alpha, if it has one) or lacks a metric."""
    lines = []
    for row in rows:
        lacking = [name for name in metrics if name not in row.metrics]
        if row.state != "done" and (row.state != "diverged" or row.alpha is None):
            lines.append(f"{row.name}: {state_of(row)}")
        elif row.state == "done" and lacking:
            lines.append(f"{row.name}: done, but without {', '.join(lacking)}")
    return tuple(lines)
