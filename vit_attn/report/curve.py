"""Rows -> the curves of the figure: accuracy against alpha, mean and spread over seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vit_attn.report.collect import Row
from vit_attn.report.varied import short_name, values_of, varied_within_lengths


@dataclass(frozen=True)
class Point:
    """Accuracies in percent of the seeds at one alpha: their mean, and their standard deviation (n - 1; 0 for one seed)."""

    alpha: float | None
    mean: float
    std: float


@dataclass(frozen=True)
class Curve:
    """One line: `alpha` of its points ascends. A curve without alpha (softmax) has at most one point."""

    label: str
    has_alpha: bool
    points: tuple[Point, ...]
    diverged: tuple[float, ...]  # alphas at which a member diverged


def curves(rows: Sequence[Row]) -> dict[int, list[Curve]]:
    """The curves of each L, ascending, for rows as `collect` sorts them: one for each h and each combination of the other
    settings that vary."""
    varied = varied_within_lengths(rows)
    panels: dict[int, list[Curve]] = {}
    for length in sorted({row.length for row in rows}):
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if row.length == length:
                groups.setdefault(_label(row, varied), []).append(row)
        panels[length] = [_curve(label, group) for label, group in groups.items()]
    return panels


def _label(row: Row, varied: Sequence[str]) -> str:
    settings = zip(varied, values_of(row, varied), strict=True)
    return ", ".join([row.h, *(f"{short_name(key, varied)} {value}" for key, value in settings)])


def _curve(label: str, rows: Sequence[Row]) -> Curve:
    accuracies: dict[float | None, list[float]] = {}
    for row in rows:
        if row.has_result and row.accuracy is not None:
            accuracies.setdefault(row.alpha, []).append(100 * row.accuracy)
    points = [
        Point(alpha, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
        for alpha, values in accuracies.items()
    ]
    diverged = {row.alpha for row in rows if row.state == "diverged" and row.alpha is not None}
    return Curve(label, rows[0].alpha is not None, tuple(sorted(points, key=lambda p: p.alpha or 0.0)), tuple(sorted(diverged)))
