"""The figure of any sweep: accuracy against alpha, a panel for each L, a line for whatever else varies."""

from collections.abc import Sequence

from vit_attn.report.alpha_panels import X_HTML, X_LABEL
from vit_attn.report.collect import Row
from vit_attn.report.group import alpha_series, grouped, line_of, missing, with_others
from vit_attn.report.metric import Metric
from vit_attn.report.series import Chart, NotHere, Panel

MOST_LINES, MOST_LEVELS = 16, 6  # beyond, nobody can tell them apart, and the figures of the papers are the better view


def chart(rows: Sequence[Row], metric: Metric) -> Chart:
    """Raises NotHere if there would be too many lines to tell apart."""
    lines = with_others(rows, {row.path: line_of(row) for row in rows}, lambda row: row.length)
    kinds = {(lines[row.path].label, row.alpha is None) for row in rows}
    levels = sum(level for _, level in kinds)
    if len(kinds) - levels > MOST_LINES or levels > MOST_LEVELS:
        raise NotHere(f"{len(kinds)} kinds of runs, {levels} of them without alpha, are more lines than can be told apart")
    panels = tuple(
        Panel(f"L = {length} keys", alpha_series(group, lines, metric), metric.label)
        for length, group in sorted(grouped(rows, lambda row: row.length).items())
    )
    return Chart("figure", "Overview", "alpha", X_LABEL, X_HTML, panels, missing=missing(rows, [metric.name]))
