"""The figure: accuracy against alpha, one panel per L, one line per h, softmax as a dashed line: arXiv:2309.08586, Fig. 2."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vit_attn.report.curve import Curve

# Okabe and Ito's palette without its yellow, which is too faint for a line; told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LEVEL_COLOURS = ("#222222", "#777777", "#AAAAAA")  # softmax
PANELS_A_ROW = 3
DOTS_AN_INCH = 200
MOST_TICKS = 9
FONTS: Any = {
    **{"font.size": 11, "axes.titlesize": 12, "axes.labelsize": 12, "legend.fontsize": 11},
    **{"svg.hashsalt": "vit_attn", "svg.fonttype": "none", "font.family": "sans-serif"},
}


class Look(NamedTuple):
    colour: str
    marker: str
    dashes: Any


def write_figure(panels: Mapping[int, Sequence[Curve]], files: Sequence[Path]) -> None:
    """Draws `panels` (L -> curves) into each of `files`; the suffix says which format, .png or .svg."""
    with matplotlib.rc_context(FONTS):
        figure = draw(panels)
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else {}
            figure.savefig(file, dpi=DOTS_AN_INCH, metadata=metadata)


def draw(panels: Mapping[int, Sequence[Curve]]) -> Figure:
    columns = min(len(panels), PANELS_A_ROW)
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6.5 if columns == 1 else 9.0, 1.0 + 3.4 * lines))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    looks = _looks(panels)
    for axis, (length, curves) in zip(axes.flat, panels.items(), strict=False):
        axis.set_title(f"L = {length} keys")
        _draw_panel(axis, curves, looks)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation accuracy (%)")
    for axis in axes[-1]:
        axis.set_xlabel(r"$\alpha$  in  $L^{-\alpha}\,h(q\cdot k/\sqrt{d})$")
    _scale(axes[0, 0], [curve for curves in panels.values() for curve in curves])
    _legend(figure, panels, looks)
    return figure


def _looks(panels: Mapping[int, Sequence[Curve]]) -> dict[str, Look]:
    """One look for each label, the same in every panel."""
    levels = dict.fromkeys(c.label for curves in panels.values() for c in curves if not c.has_alpha)
    others = dict.fromkeys(c.label for curves in panels.values() for c in curves if c.has_alpha)
    looks = {label: Look(LEVEL_COLOURS[i % len(LEVEL_COLOURS)], "", (0, (5, 2 + 2 * i))) for i, label in enumerate(levels)}
    for i, label in enumerate(others):
        looks[label] = Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], "-")
    return looks


def _draw_panel(axis: Axes, curves: Sequence[Curve], looks: Mapping[str, Look]) -> None:
    for curve in curves:
        look = looks[curve.label]
        if curve.has_alpha:
            _draw_curve(axis, curve, look)
        else:
            _draw_level(axis, curve, look)
    _draw_diverged(axis, curves, looks)
    axis.grid(True, color="#E3E3E3", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.06, y=0.09)


def _scale(axis: Axes, curves: Sequence[Curve]) -> None:
    """Ticks at the alphas, and room for the crosses at the bottom; every panel shares the axes of this one."""
    diverged = {alpha for curve in curves for alpha in curve.diverged}
    alphas = sorted({p.alpha for curve in curves for p in curve.points if p.alpha is not None} | diverged)
    if len(alphas) <= MOST_TICKS:
        axis.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
    if diverged:
        low, high = axis.get_ylim()
        axis.set_ylim(low - 0.12 * (high - low), high)


def _draw_curve(axis: Axes, curve: Curve, look: Look) -> None:
    alphas = [point.alpha for point in curve.points if point.alpha is not None]
    means = [point.mean for point in curve.points]
    axis.plot(alphas, means, look.dashes, color=look.colour, marker=look.marker, markersize=6.5, linewidth=1.8)
    if any(point.std for point in curve.points):
        low, high = [p.mean - p.std for p in curve.points], [p.mean + p.std for p in curve.points]
        axis.fill_between(alphas, low, high, color=look.colour, alpha=0.18, linewidth=0)


def _draw_level(axis: Axes, curve: Curve, look: Look) -> None:
    for point in curve.points:
        axis.axhline(point.mean, color=look.colour, linestyle=look.dashes, linewidth=1.6)
        if point.std:
            axis.axhspan(point.mean - point.std, point.mean + point.std, color=look.colour, alpha=0.1, linewidth=0)


def _draw_diverged(axis: Axes, curves: Sequence[Curve], looks: Mapping[str, Look]) -> None:
    """A cross at the bottom for each member that diverged; crosses at the same alpha stand above each other."""
    stacked: dict[float, int] = {}
    for curve in curves:
        for alpha in curve.diverged:
            height = 0.035 + 0.06 * stacked.get(alpha, 0)
            stacked[alpha] = stacked.get(alpha, 0) + 1
            cross: Any = {"marker": "x", "markersize": 8, "markeredgewidth": 2.2, "linestyle": "none", "clip_on": False}
            axis.plot([alpha], [height], color=looks[curve.label].colour, transform=axis.get_xaxis_transform(), **cross)


def _legend(figure: Figure, panels: Mapping[int, Sequence[Curve]], looks: Mapping[str, Look]) -> None:
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dashes, linewidth=1.8, markersize=6.5, label=label)
        for label, look in looks.items()
    ]
    if any(curve.diverged for curves in panels.values() for curve in curves):
        handles.append(Line2D([], [], color="#555555", marker="x", markeredgewidth=2, linestyle="none", label="diverged"))
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 10 / (longest + 7))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)
