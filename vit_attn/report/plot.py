"""Charts as plotly's figures: plain dictionaries, one for each panel, which the page's script draws."""

import math
from collections.abc import Mapping, Sequence

from vit_attn.report.look import Look, looks_of, marks_of
from vit_attn.report.plot_dots import GRID, Plot, columns_of
from vit_attn.report.series import Chart, Dots, Panel, Point, Series

SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"},
    **{"X": "x", "*": "star"},
}
PAD = 0.06  # of the range, on each side
MOST_TICKS = 9
ACROSS = 20  # parts of a level
WIDEST, THINNEST = 2.8, 1.4  # of the lines of a panel, in pixels: its first and its last


def plots_of(chart: Chart | Dots) -> list[Plot]:
    """{"title", "data", "layout"} of each panel."""
    return _panels(chart) if isinstance(chart, Chart) else columns_of(chart)


def _panels(chart: Chart) -> list[Plot]:
    looks, marks = looks_of(chart.series), marks_of(chart.series)
    xs = sorted({x for series in chart.series for x in series.xs})
    x_range = _range(xs, chart.log_x)
    plots = []
    for panel in chart.panels:
        shared = [series for other in chart.panels if other.y_label == panel.y_label for series in other.series]
        y_range = _range([y for series in shared for point in series.points for y in _ends(point)], chart.log_y)
        layout = {"xaxis": _axis(chart.x_html, x_range, chart.log_x), "yaxis": _axis(panel.y_label, y_range, chart.log_y)}
        if not chart.log_x and len(xs) <= MOST_TICKS:
            layout["xaxis"] |= {"tickvals": xs}
        data = []
        for order, series in enumerate(panel.series):  # one that lies below another is wider than that, and shows
            traces = _traces(series, looks[series.label], marks, x_range)
            width = WIDEST - (WIDEST - THINNEST) * order / len(panel.series)
            data += [trace | {"line": trace["line"] | {"width": width}} if "line" in trace else trace for trace in traces]
        data += _crosses(panel, looks, y_range)
        plots.append({"title": panel.title, "data": data, "layout": layout})
    return plots


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
    """The band and the line. A level is a line across the panel, of many points, so that one is near wherever one points at."""
    low, high = x_range
    across = [low + (high - low) * i / ACROSS for i in range(ACROSS + 1)]
    traces = []
    for level in (point for point in series.points if point.x is None):
        traces += _line(series.label, look, [level] * len(across), across, "lines")
    points = [point for point in series.points if point.x is not None]
    if points:
        symbols = [marks.get(point.mark, look.marker) for point in points]
        traces += _line(series.label, look, points, [point.x or 0.0 for point in points], "lines+markers", symbols)
    return traces


def _line(
    label: str, look: Look, points: Sequence[Point], xs: Sequence[float], mode: str, symbols: Sequence[str] = ()
) -> list[Plot]:
    traces: list[Plot] = []
    both: Plot = {"name": label, "meta": label}  # meta: by which the page's legend finds them
    if any(point.std for point in points):
        lows, highs = zip(*map(_ends, points), strict=True)
        around: Plot = {"x": [*xs, *reversed(xs)], "y": [*lows, *reversed(highs)], "fill": "toself", "mode": "none"}
        traces.append(both | around | {"fillcolor": _faint(look.colour), "hoverinfo": "skip"})
    dash = ",".join(f"{part}px" for part in look.dashes) or "solid"
    marker: Plot = {"symbol": [SYMBOLS[s] + ("-open" if look.hollow else "") for s in symbols], "size": 9, "color": look.colour}
    line: Plot = {
        "x": list(xs),
        "y": [point.mean for point in points],
        "mode": mode,
        "text": [_words(point) for point in points],
    }
    line |= {"line": {"color": look.colour, "dash": dash}, "marker": marker}
    traces.append(both | line | {"hovertemplate": f"<b>{label}</b><br>%{{text}}<extra></extra>"})
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
