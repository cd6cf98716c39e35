"""What a chart is made of: points (mean and spread over seeds), series of them, panels. Nothing is drawn here."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDE_RATIO = 20.0


@dataclass(frozen=True)
class Point:
    """`values` of the seeds at one x, in the metric's unit; x is None for what has no alpha and is drawn as a level.

    `mark` is what the marker tells (the model's size), `names` are the members, in the order of the values.
    """

    x: float | None
    values: tuple[float, ...]
    names: tuple[str, ...] = ()
    mark: str = ""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """The standard deviation over seeds (n - 1); 0 for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class Series:
    """One line; x of its points ascends. `reference`: softmax or a relative without alpha, what others are compared with."""

    label: str
    points: tuple[Point, ...]
    diverged: tuple[float, ...] = ()  # x at which a member diverged
    reference: bool = False
    kin: str = ""  # series of one kin share a colour: relu with and without a gate
    variant: str = ""  # what distinguishes them

    @property
    def xs(self) -> list[float]:
        """Of points and of what diverged."""
        return [*(point.x for point in self.points if point.x is not None), *self.diverged]


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Panels of a chart that have the same `y_label` are drawn to the same scale."""

    title: str
    series: tuple[Series, ...]
    y_label: str


@dataclass(frozen=True)
class Table:
    """Numbers that go with a chart, unrounded; None: not known. `name` is that of its file, `note` what they rest on."""

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure whose panels hold lines. `x` names the column of its CSV, `x_label` is for matplotlib, `x_html` for a page."""

    name: str
    title: str
    x: str
    x_label: str
    x_html: str
    panels: tuple[Panel, ...]
    log_x: bool = False
    log_y: bool = False
    tables: tuple[Table, ...] = ()
    missing: tuple[str, ...] = ()  # a line for each member that should be in it and is not

    @property
    def series(self) -> list[Series]:
        return [series for panel in self.panels for series in panel.series]

    @property
    def has_points(self) -> bool:
        return any(series.points for series in self.series)


@dataclass(frozen=True)
class Dots:
    """A figure for a table: a row of dots for each setting, a column of axes for each metric. Cells hold a value a seed."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]  # (label, a cell for each column)
    tables: tuple[Table, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def has_points(self) -> bool:
        return any(cell for _, cells in self.rows for cell in cells)


Drawing = Chart | Dots  # what a figure of report.figures is


class NotHere(Exception):  # noqa: N818 (it is no error)
    """The runs are not those of a figure; the message says which ones would be."""


def spread(values: Sequence[float]) -> tuple[float, float]:
    """(mean, standard deviation with n - 1; 0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def is_wide(cells: Sequence[Sequence[float]]) -> bool:
    """Whether the values span so much that only a logarithmic axis shows them all."""
    values = [value for cell in cells for value in cell]
    return bool(values) and min(values) > 0 and max(values) / min(values) > WIDE_RATIO
