"""arXiv:2309.08586, figure 1: accuracy against core-hours, softmax and h / L over the sizes of the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_attn.report.bootstrap import HOW
from vit_attn.report.collect import Row
from vit_attn.report.group import Line, grouped, missing, point, with_others
from vit_attn.report.metric import Metric
from vit_attn.report.plain import plain
from vit_attn.report.power_law import PowerLaw, Ratio, compute_ratio, power_law
from vit_attn.report.series import Chart, NotHere, Panel, Point, Series, Table

TRANSFER = Metric("fewshot/mean_10shot")  # the paper's second panel
HOURS = "speed/core_hours"


def chart(rows: Sequence[Row], metric: Metric) -> Chart:
    """Raises NotHere unless softmax or an h at alpha = 1 was trained in two sizes."""
    chosen = [row for row in plain(rows) if row.h == "softmax" or row.alpha == 1.0]
    sizes = [{row.size for row in group} for group in grouped(chosen, lambda row: (row.dataset, row.h)).values()]
    if max(map(len, sizes), default=0) < 2:
        raise NotHere("neither softmax nor an h at alpha = 1 in two sizes of the model")
    lines = with_others(chosen, {row.path: _line(row) for row in chosen}, lambda row: (row.dataset, row.size))
    panels = []
    for dataset, group in grouped(chosen, lambda row: row.dataset).items():
        shown = [metric, *([TRANSFER] if metric != TRANSFER and any(TRANSFER.of(row) is not None for row in group) else [])]
        for one in shown:
            series = [_series(line, of, one) for line, of in grouped(group, lambda row: lines[row.path]).items()]
            panels.append(Panel(dataset, tuple(series), one.label))
    tables = _fit_tables([panel for panel in panels if panel.y_label == metric.label], metric)
    hours = "core-hours (training time x devices)"
    found = missing(chosen, [metric.name, HOURS])
    return Chart("fig1", "Accuracy against compute", "core_hours", hours, hours, tuple(panels), True, False, tables, found)


def _line(row: Row) -> Line:
    return Line(row.h if row.alpha is None else f"{row.h} / L", row.h)


def _series(line: Line, rows: Sequence[Row], metric: Metric) -> Series:
    """A point for each size, at the mean of its runs' core-hours."""
    points: list[Point] = []
    for size, group in grouped(rows, lambda row: row.size).items():
        known = [row for row in group if row.core_hours and metric.of(row) is not None]
        found = point(known, metric, float(np.mean([row.core_hours for row in known])), size) if known else None
        points += [found] if found else []
    ordered = tuple(sorted(points, key=lambda p: p.x or 0.0))
    return Series(line.label, ordered, (), rows[0].alpha is None, line.kin, line.variant)


def _fit_tables(panels: Sequence[Panel], metric: Metric) -> tuple[Table, Table]:
    """The power law of each line, and the compute that each needs for softmax's accuracy."""
    laws_body: list[tuple[Any, ...]] = []
    ratios_body: list[tuple[Any, ...]] = []
    for panel in panels:
        fits = [(series, _law(series, metric, stream)) for stream, series in enumerate(panel.series)]
        for series, law in fits:
            n = len(series.points)
            cells = law.exponent if law else (None, None, None)
            laws_body.append((panel.title, series.label, *cells, n, "" if law else "not enough points"))
        references = [fit for fit in fits if fit[0].reference]
        for series, law in fits:
            if references and not series.reference:
                softmax, softmax_law = references[0]
                found = _ratio(series, law, softmax, softmax_law, metric)
                ratios_body.append((panel.title, f"{series.label} over {softmax.label}", *found))
    what = "100 - accuracy in %" if metric.is_share else metric.name
    note = f"error = factor x core-hours^-exponent, error = {what}. {HOW}, residuals of the fit resampled."
    fits_head = ("panel", "h", "exponent", "low", "high", "sizes", "note")
    ratio_head = ("panel", "h", "compute_ratio", "low", "high", "at_error", "note")
    return (
        Table("fig1_power_law", "Power law of error against compute", fits_head, tuple(laws_body), note),
        Table("fig1_compute_ratio", "Compute for the same error", ratio_head, tuple(ratios_body), note),
    )


def _law(series: Series, metric: Metric, stream: int) -> PowerLaw | None:
    if not series.points:
        return None
    return power_law([p.x or 0.0 for p in series.points], [metric.error(p.mean) for p in series.points], stream)


def _ratio(series: Series, law: PowerLaw | None, reference: Series, reference_law: PowerLaw | None, metric: Metric) -> Ratio:
    errors = [[metric.error(point.mean) for point in one.points] for one in (series, reference)]
    if not all(errors):
        return compute_ratio(None, None, (0.0, 0.0))
    return compute_ratio(law, reference_law, (max(map(min, errors)), min(map(max, errors))))
