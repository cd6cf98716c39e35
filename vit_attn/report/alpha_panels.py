"""Charts over alpha: panels by place, a line for each h, softmax as a level; and the table of the best alphas."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from vit_attn.report.best_alpha import best_alpha
from vit_attn.report.bootstrap import HOW
from vit_attn.report.collect import Row
from vit_attn.report.group import Line, alpha_series, grouped, missing, place_of, place_order, with_others
from vit_attn.report.metric import Metric
from vit_attn.report.series import Chart, Panel, Table, spread

X_LABEL = r"$\alpha$  in  $L^{-\alpha}\,h(q\cdot k/\sqrt{d})$"
X_HTML = "α in L<sup>−α</sup> h(q·k/√d)"


def alpha_chart(
    name: str, title: str, rows: Sequence[Row], metric: Metric, line_of: Callable[[Row], Line], tables: Sequence[Table] = ()
) -> Chart:
    """Accuracy against alpha, a panel for each data set and size."""
    lines = with_others(rows, {row.path: line_of(row) for row in rows}, place_of)
    places = grouped(rows, place_of)
    panels = tuple(
        Panel(f"{place[0]}  {place[1]}", alpha_series(places[place], lines, metric), metric.label)
        for place in sorted(places, key=place_order)
    )
    best = best_alpha_table(name, panels, metric)
    return Chart(name, title, "alpha", X_LABEL, X_HTML, panels, tables=(best, *tables), missing=missing(rows, [metric.name]))


def best_alpha_table(name: str, panels: Sequence[Panel], metric: Metric) -> Table:
    """A row for each line that has an alpha: the best one with its interval, the fitted value there, and softmax beside it."""
    body: list[tuple[Any, ...]] = []
    for panel in panels:
        levels = [point.mean for series in panel.series if series.reference for point in series.points]
        for series in panel.series:
            if not series.reference:
                best = best_alpha(series.points, metric.higher_is_better)
                seeds = min((len(point.values) for point in series.points), default=0)
                level = levels[0] if len(levels) == 1 else None
                body.append((panel.title, series.label, best.alpha, best.low, best.high, best.value, level, seeds, best.note))
    head = ("panel", "h", "best_alpha", "low", "high", "value_there", "softmax", "seeds", "note")
    note = f"Parabola about the highest mean. {HOW}, seeds of each alpha resampled."
    return Table(f"{name}_best_alpha", f"Best alpha ({metric.label})", head, tuple(body), note)


def cost_table(name: str, rows: Sequence[Row], has: Callable[[Row], bool], what: str) -> Table:
    """Core-hours of a run that `has` it over those of its twin that has not, in percent more, by place and h.

    Twins agree in data set, size, h, alpha and seed; the mean and deviation are over pairs.
    """
    hours = grouped([row for row in rows if row.state == "done" and row.core_hours], lambda r: (has(r), _twin(r)))
    extra: dict[tuple[str, str, str], list[float]] = {}
    for (with_it, twin), group in hours.items():
        others = hours.get((False, twin), [])
        if with_it and others:
            dear, cheap = (fmean(row.core_hours or 0.0 for row in runs) for runs in (group, others))
            extra.setdefault(twin[:3], []).append(100 * (dear / cheap - 1))
    body = [(f"{place[0]}  {place[1]}", place[2], *spread(values), len(values)) for place, values in extra.items()]
    head = ("panel", "h", "extra_core_hours_percent", "std", "pairs")
    note = "speed/core_hours of status.json, as measured: training time x devices, without evaluation."
    return Table(f"{name}_cost", f"What the {what} costs", head, tuple(body), note)


def _twin(row: Row) -> tuple[str, str, str, float | None, int]:
    return row.dataset, row.size, row.h, row.alpha, row.seed
