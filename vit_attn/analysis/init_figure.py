"""The figure: mean attention weight times L against L at initialisation, one panel per alpha, one line per h."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from vit_attn.analysis.initial_weights import InitialWeights, by_curve
from vit_attn.report.figure import DOTS_AN_INCH, FONTS
from vit_attn.report.look import COLOURS, LEVEL_COLOURS, MARKERS

SAME = 0.05  # lines that end closer than this share of their height have one label for all
LABEL_HEIGHT = 0.075  # of a panel
COLUMNS = 3
MOST_TICKS = 5
SOLID = 4  # lines; further ones are dashed and have small marks, so that what they lie on shows through

Curve = Sequence[InitialWeights]
Looks = Mapping[str, dict[str, Any]]


def pictures(rows: Iterable[InitialWeights]) -> dict[str, bytes]:
    """The figure as a .png and as a .svg file."""
    files = {}
    with matplotlib.rc_context(FONTS):
        figure = draw(list(by_curve(rows).values()))
        for kind in ("png", "svg"):
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=DOTS_AN_INCH, metadata={"Date": None} if kind == "svg" else {})
            files[kind] = file.getvalue()
    return files


def draw(curves: Sequence[Curve]) -> Figure:
    """A panel for each alpha, all on the same axes, and one that magnifies the alpha next to 1 and names the lines."""
    alphas = sorted({row.alpha for curve in curves for row in curve if row.alpha is not None}) or [1.0]
    magnified = min(alphas, key=lambda alpha: abs(alpha - 1))
    drawn = [curve for curve in curves if not any(row.vanishes for row in curve)]
    looks = _looks(drawn)
    figure, axes = _panels(len(alphas) + 1)
    for axis, alpha in zip(axes, [*alphas, magnified], strict=True):
        _draw_panel(axis, [curve for curve in drawn if curve[0].alpha in (None, alpha)], looks)
        axis.set_title(rf"$\alpha = {alpha:g}$")
    for axis in axes[1:-1]:
        axis.sharey(axes[0])
        axis.tick_params(labelleft=axis in axes[::COLUMNS])
    axes[0].autoscale_view()
    _ticks(axes[0], sorted({row.length for curve in curves for row in curve}))
    _name_lines(axes[-1], [curve for curve in drawn if curve[0].alpha in (None, magnified)], looks)
    axes[-1].set_title(rf"$\alpha = {magnified:g}$, magnified")
    absent = dict.fromkeys(curve[0].h for curve in curves if curve not in drawn)
    figure.supxlabel("number of keys L" + (f"        ({', '.join(absent)}: mean 0, no line)" if absent else ""), fontsize=12)
    figure.supylabel(r"mean attention weight $\cdot$ L", fontsize=12)
    return figure


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    """The last one stands in the corner, where the names right of it have room."""
    columns = min(COLUMNS, number)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(3.0 * columns, 0.5 + 2.6 * rows))
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    FigureCanvasAgg(figure)
    cells = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
    used = [*range(number - 1), len(cells) - 1]
    for i, axis in enumerate(cells):
        axis.set_visible(i in used)
        axis.tick_params(labelbottom=i + columns not in used)
    return figure, [cells[i] for i in used]


def _looks(curves: Sequence[Curve]) -> Looks:
    """By h: colours and marks where it has an alpha, dashes of grey where it has none."""
    levels = list(dict.fromkeys(curve[0].h for curve in curves if curve[0].alpha is None))
    others = list(dict.fromkeys(curve[0].h for curve in curves if curve[0].alpha is not None))
    looks: dict[str, dict[str, Any]] = {}
    for i, h in enumerate(levels):
        looks[h] = {"color": LEVEL_COLOURS[i % len(LEVEL_COLOURS)], "linestyle": (0, (4, 1.5 + 1.5 * i)), "linewidth": 1.6}
    for i, h in enumerate(others):
        looks[h] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linewidth": 1.5}
        looks[h] |= {"linestyle": "-", "markersize": 5} if i < SOLID else {"linestyle": (0, (2, 2)), "markersize": 3}
    return looks


def _draw_panel(axis: Axes, curves: Sequence[Curve], looks: Looks) -> None:
    for curve in curves:
        axis.plot([row.length for row in curve], [row.sum for row in curve], **looks[curve[0].h])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(True, color="#E3E3E3", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _ticks(axis: Axes, lengths: Sequence[int]) -> None:
    """At the lengths, on the axis that all panels share."""
    some = lengths[:: math.ceil(len(lengths) / MOST_TICKS)]
    axis.set_xticks(some, [str(length) for length in some])
    axis.xaxis.set_minor_locator(NullLocator())


def _name_lines(axis: Axes, curves: Sequence[Curve], looks: Looks) -> None:
    """The names at the right ends, moved apart where they would touch; lines on top of each other share a name."""
    groups: list[list[InitialWeights]] = []  # of the ends
    for end in sorted((curve[-1] for curve in curves), key=lambda end: end.sum):
        if groups and end.sum < (1 + SAME) * groups[-1][-1].sum:
            groups[-1].append(end)
        else:
            groups.append([end])
    low, high = np.log(axis.get_ylim())
    wanted = [(math.log(group[0].sum) - low) / (high - low) for group in groups]
    for place, group in zip(_apart(wanted), groups, strict=True):
        axis.annotate(
            ", ".join(end.h for end in group),
            xy=(group[0].length, group[0].sum),
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            fontsize=10,
            color=looks[group[0].h]["color"] if len(group) == 1 else "#222222",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4},
        )
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _apart(places: Sequence[float]) -> list[float]:
    """Ascending heights, moved as little as possible until neighbours are LABEL_HEIGHT apart."""
    moved = list(places)
    for _ in range(200):
        for i in range(1, len(moved)):
            missing = LABEL_HEIGHT - (moved[i] - moved[i - 1])
            if missing > 1e-6:
                moved[i - 1], moved[i] = moved[i - 1] - missing / 2, moved[i] + missing / 2
    return moved
