"""Charts as PNG and SVG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vit_attn.report.figure_dots import draw_dots
from vit_attn.report.look import Look, looks_of, marks_of
from vit_attn.report.series import Chart, Drawing, Panel, Point, Series
from vit_attn.report.ticks import log_ticks, ticks_at

PANELS_A_ROW = 3
DOTS_AN_INCH = 200
FONTS: Any = {
    **{"font.size": 11, "axes.titlesize": 12, "axes.labelsize": 12, "legend.fontsize": 11},
    **{"svg.hashsalt": "vit_attn", "svg.fonttype": "none", "font.family": "sans-serif"},
}
CROSS: Any = {"marker": "x", "markersize": 8, "markeredgewidth": 2.2, "linestyle": "none", "clip_on": False}


def write_figure(drawing: Drawing, files: Sequence[Path]) -> None:
    """Draws into each of `files`; the suffix says which format, .png or .svg."""
    with matplotlib.rc_context(FONTS):
        figure = draw(drawing) if isinstance(drawing, Chart) else draw_dots(drawing)
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else {}
            figure.savefig(file, dpi=DOTS_AN_INCH, metadata=metadata)
            figure.set_layout_engine("none")  # once is enough: it takes as long as drawing


def draw(chart: Chart) -> Figure:
    columns = min(len(chart.panels), PANELS_A_ROW)
    if len(chart.panels) == 4:
        columns = 2
    lines = math.ceil(len(chart.panels) / columns)
    figure = Figure(figsize=(6.5 if columns == 1 else 9.0, 1.0 + 3.4 * lines))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False)
    axes = list(grid.flat)
    looks, marks = looks_of(chart.series), marks_of(chart.series)
    for axis, panel in zip(axes, chart.panels, strict=False):
        axis.set_title(panel.title)
        _draw_panel(axis, panel, looks, marks)
    for axis in axes[len(chart.panels) :]:
        axis.set_visible(False)
    _scale(chart, axes)
    _label(chart, axes, columns)
    _legend(figure, chart, looks, marks)
    _name_marks(axes[0], marks)
    return figure


def _draw_panel(axis: Axes, panel: Panel, looks: Mapping[str, Look], marks: Mapping[str, str]) -> None:
    for order, series in enumerate(panel.series):
        look = looks[series.label]
        for point in series.points:
            if point.x is None:
                _draw_level(axis, point, look)
        _draw_line(axis, [point for point in series.points if point.x is not None], look, marks, order / len(panel.series))
    _draw_diverged(axis, panel.series, looks)
    axis.grid(True, color="#E3E3E3", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.06, y=0.09)


def _draw_line(axis: Axes, points: Sequence[Point], look: Look, marks: Mapping[str, str], order: float) -> None:
    """`order`: from 0 for the first line to nearly 1 for the last, which is thinner: below one that lies on it, it shows."""
    if not points:
        return
    xs, means = [point.x or 0.0 for point in points], [point.mean for point in points]
    face = "white" if look.hollow else look.colour
    style: Any = {"color": look.colour, "markerfacecolor": face, "markersize": 8 - 3 * order, "markeredgewidth": 1.5}
    axis.plot(xs, means, linestyle=_dashes(look), linewidth=2.6 - 1.4 * order, marker="" if marks else look.marker, **style)
    for point in points if marks else ():
        axis.plot([point.x or 0.0], [point.mean], marker=marks[point.mark], **style)
    if any(point.std for point in points):
        low, high = [p.mean - p.std for p in points], [p.mean + p.std for p in points]
        axis.fill_between(xs, low, high, color=look.colour, alpha=0.16, linewidth=0)


def _draw_level(axis: Axes, point: Point, look: Look) -> None:
    axis.axhline(point.mean, color=look.colour, linestyle=_dashes(look), linewidth=1.6)
    if point.std:
        axis.axhspan(point.mean - point.std, point.mean + point.std, color=look.colour, alpha=0.1, linewidth=0)


def _dashes(look: Look) -> Any:
    return (0, look.dashes) if look.dashes else "-"


def _draw_diverged(axis: Axes, series: Sequence[Series], looks: Mapping[str, Look]) -> None:
    """A cross at the bottom for each member that diverged; crosses at the same x stand above each other."""
    stacked: dict[float, int] = {}
    for one in series:
        for x in one.diverged:
            height = 0.035 + 0.06 * stacked.get(x, 0)
            stacked[x] = stacked.get(x, 0) + 1
            where: Any = {"color": looks[one.label].colour, "transform": axis.get_xaxis_transform()}
            axis.plot([x], [height], **where, **CROSS)


def _scale(chart: Chart, axes: Sequence[Axes]) -> None:
    """One x for all panels, one y for those of the same label; ticks at the alphas; room for the crosses at the bottom."""
    first: dict[str, Axes] = {}
    for axis, panel in zip(axes, chart.panels, strict=False):
        axis.set_xscale("log" if chart.log_x else "linear")
        axis.set_yscale("log" if chart.log_y else "linear")
        if axis is not axes[0]:
            axis.sharex(axes[0])
        if panel.y_label in first:
            axis.sharey(first[panel.y_label])
        first.setdefault(panel.y_label, axis)
    axes[0].autoscale_view()
    xs = sorted({x for series in chart.series for x in series.xs})
    if chart.log_x:
        log_ticks(axes[0].xaxis, min(xs), max(xs))
    else:
        ticks_at(axes[0].xaxis, xs)
    for axis in first.values():
        if chart.log_y:
            log_ticks(axis.yaxis, *axis.get_ylim())
        elif any(series.diverged for series in chart.series):
            low, high = axis.get_ylim()
            axis.set_ylim(low - 0.12 * (high - low), high)


def _label(chart: Chart, axes: Sequence[Axes], columns: int) -> None:
    """Left of a row, and where another quantity begins; x below the last panel of each column."""
    for i, (axis, panel) in enumerate(zip(axes, chart.panels, strict=False)):
        begins = i % columns == 0 or panel.y_label != chart.panels[i - 1].y_label
        axis.set_ylabel(panel.y_label if begins else "")
        lowest = i + columns >= len(chart.panels)
        axis.tick_params(labelleft=begins, labelbottom=lowest)
        axis.set_xlabel(chart.x_label if lowest else "")


def _legend(figure: Figure, chart: Chart, looks: Mapping[str, Look], marks: Mapping[str, str]) -> None:
    drawn = {series.label for series in chart.series if series.points or series.diverged}
    levels = {series.label for series in chart.series if all(point.x is None for point in series.points)}
    handles = [
        Line2D(
            *([], []),
            color=look.colour,
            marker="" if marks or label in levels else look.marker,
            markerfacecolor="white" if look.hollow else look.colour,
            linestyle=_dashes(look),
            label=label,
            linewidth=1.8,
            markersize=6.5,
            markeredgewidth=1.5,
        )
        for label, look in looks.items()
        if label in drawn
    ]
    if any(series.diverged for series in chart.series):
        handles.append(Line2D([], [], color="#555555", marker="x", markeredgewidth=2, linestyle="none", label="diverged"))
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 10 / (longest + 7))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)


def _name_marks(axis: Axes, marks: Mapping[str, str]) -> None:
    """Where the curves leave most room."""
    handles = [Line2D([], [], color="#555555", marker=m, linestyle="none", label=mark) for mark, m in marks.items()]
    if handles:
        axis.legend(handles=handles, loc="best", frameon=False, handletextpad=0.2, labelspacing=0.3)
