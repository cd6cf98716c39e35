"""Charts as plotly's figures: plain dictionaries, one for each panel, which the page's script draws."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vit_attn.report.figure_dots import is_wide
from vit_attn.report.look import COLOURS, LEVEL_COLOURS, Look, looks_of, marks_of
from vit_attn.report.series import Chart, Dots, Panel, Point, Series, spread

SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"},
    **{"X": "x", "*": "star"},
}
GRID = "#E3E3E3"
PAD = 0.06  # of the range, on each side
Plot = dict[str, Any]


def plots_of(chart: Chart | Dots) -> list[Plot]:
    """{"title", "data", "layout"} of each panel."""
    return _panels(chart) if isinstance(chart, Chart) else _columns(chart)


def _panels(chart: Chart) -> list[Plot]:
    looks, marks = looks_of(chart.series), marks_of(chart.series)
    x_range = _range(_xs(chart.series), chart.log_x)
    plots = []
    for panel in chart.panels:
        shared = [series for other in chart.panels if other.y_label == panel.y_label for series in other.series]
        y_range = _range([y for series in shared for point in series.points for y in _ends(point)], chart.log_y)
        layout = {"xaxis": _axis(chart.x_html, x_range, chart.log_x), "yaxis": _axis(panel.y_label, y_range, chart.log_y)}
        if not chart.log_x and len(ticks := sorted(set(_xs(chart.series)))) <= 9:
            layout["xaxis"] |= {"tickvals": ticks}
        data = [trace for series in panel.series for trace in _traces(series, looks[series.label], marks, x_range)]
        data += _crosses(panel, looks, y_range)
        plots.append({"title": panel.title, "data": data, "layout": layout})
    return plots


def _xs(series: Sequence[Series]) -> list[float]:
    return [x for one in series for x in (*(p.x for p in one.points if p.x is not None), *one.diverged)]


def _ends(point: Point) -> tuple[float, float]:
    return point.mean - point.std, point.mean + point.std


def _range(values: Sequence[float], log: bool) -> list[float]:
    """What an axis shows, in plotly's terms: logarithms to base 10 if `log`."""
    given = [math.log10(value) for value in values if value > 0] if log else list(values)
    low, high = min(given, default=0.0), max(given, default=1.0)
    room = PAD * (high - low) or 0.5
    return [low - room, high + room]


def _axis(title: str, ends: Sequence[float], log: bool) -> Plot:
    axis: Plot = {"title": {"text": title}, "range": list(ends), "gridcolor": GRID, "zeroline": False, "automargin": True}
    return axis | ({"type": "log", "dtick": "D2" if ends[1] - ends[0] < 1.5 else 1, "tickformat": "~g"} if log else {})


def _traces(series: Series, look: Look, marks: Mapping[str, str], x_range: Sequence[float]) -> list[Plot]:
    """The band and the line. A level is a line across the panel."""
    levels = [point for point in series.points if point.x is None]
    points = [point for point in series.points if point.x is not None]
    traces = [trace for level in levels for trace in _line(series, look, [level, level], x_range, "lines")]
    return traces + (_line(series, look, points, [p.x for p in points if p.x is not None], "lines+markers", marks) if points else [])


def _line(
    series: Series, look: Look, points: Sequence[Point], xs: Sequence[float], mode: str, marks: Mapping[str, str] | None = None
) -> list[Plot]:
    symbols = [marks[point.mark] for point in points] if marks else [look.marker] * len(points)
    traces: list[Plot] = []
    if any(point.std for point in points):
        lows, highs = zip(*map(_ends, points), strict=True)
        around = {"x": [*xs, *reversed(xs)], "y": [*lows, *reversed(highs)], "fill": "toself", "mode": "none"}
        traces.append(around | {"fillcolor": _faint(look.colour), "hoverinfo": "skip", "name": series.label, "meta": series.label})
    dash = ",".join(f"{part}px" for part in look.dashes) or "solid"
    marker = {"symbol": [SYMBOLS[s] + ("-open" if look.hollow else "") for s in symbols], "size": 9, "color": look.colour}
    line = {"x": list(xs), "y": [point.mean for point in points], "mode": mode, "name": series.label, "meta": series.label}
    line |= {"line": {"color": look.colour, "dash": dash, "width": 2}, "text": [_words(point) for point in points]}
    traces.append(line | {"marker": marker, "hovertemplate": f"<b>{series.label}</b><br>%{{text}}<extra></extra>"})
    return traces


def _words(point: Point) -> str:
    where = "" if point.x is None else f"at {point.x:.4g}: "
    seeds = f" ± {point.std:.2g} ({len(point.values)} seeds)" if len(point.values) > 1 else ""
    names = "<br>".join(point.names[:3]) + (f"<br>and {len(point.names) - 3} more" if len(point.names) > 3 else "")
    return f"{point.mark + ' ' if point.mark else ''}{where}{point.mean:.4g}{seeds}" + (f"<br>{names}" if names else "")


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def _crosses(panel: Panel, looks: Mapping[str, Look], y_range: list[float]) -> list[Plot]:
    """A cross at the bottom for each x at which a member of a series diverged, above each other where several did."""
    stacked: dict[float, int] = {}
    traces = []
    for series in panel.series:
        heights = []
        for x in series.diverged:
            heights.append(y_range[0] + (0.03 + 0.06 * stacked.get(x, 0)) * (y_range[1] - y_range[0]))
            stacked[x] = stacked.get(x, 0) + 1
        if heights:
            marker = {"symbol": "x-thin", "size": 9, "line": {"width": 3, "color": looks[series.label].colour}}
            trace = {"x": list(series.diverged), "y": heights, "mode": "markers", "marker": marker, "meta": series.label}
            words = f"<b>{series.label}</b><br>diverged at %{{x}}<extra></extra>"
            traces.append(trace | {"name": f"{series.label} diverged", "hovertemplate": words})
    return traces


def _columns(dots: Dots) -> list[Plot]:
    """A panel for each metric; the settings are named left of each of them."""
    labels = [label for label, _ in dots.rows]
    plots = []
    for column, title in enumerate(dots.columns):
        cells = [cells[column] for _, cells in dots.rows]
        known = [(label, *spread(values), values) for label, values in zip(labels, cells, strict=True) if values]
        wide = is_wide(cells)
        seeds = {
            **{"x": [v for *_, values in known for v in values], "y": [label for label, *_, values in known for _ in values]},
            **{"mode": "markers", "marker": {"symbol": "circle-open", "size": 7, "color": LEVEL_COLOURS[1]}, "hoverinfo": "x"},
        }
        means = {
            **{"x": [mean for _, mean, _, _ in known], "y": [label for label, *_ in known], "mode": "markers"},
            **{"error_x": {"array": [std for _, _, std, _ in known], "color": COLOURS[0]}},
            **{"marker": {"symbol": "diamond", "size": 9, "color": COLOURS[0]}},
            "hovertemplate": "<b>%{y}</b><br>%{x:.4g} ± %{error_x.array:.2g}<extra></extra>",
        }
        x_axis = {"title": {"text": title}, "gridcolor": GRID, "zeroline": False, "automargin": True}
        x_axis |= {"type": "log", "tickformat": "~g"} if wide else {}
        y_axis = {"categoryorder": "array", "categoryarray": labels[::-1], "automargin": True, "gridcolor": GRID}
        y_axis |= {"range": [-0.5, len(labels) - 0.5], "type": "category"}
        layout = {"xaxis": x_axis, "yaxis": y_axis, "height": 110 + 26 * len(labels)}
        plots.append({"title": "" if known else f"{title}: not measured", "data": [seeds, means], "layout": layout})
    return plots
