"""Tables as PNG and SVG: a row of dots for each setting, a column of axes for each metric."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vit_attn.report.look import COLOURS, LEVEL_COLOURS
from vit_attn.report.series import Dots, is_wide, spread
from vit_attn.report.ticks import log_ticks

INCHES_A_COLUMN = 2.3


def draw_dots(dots: Dots) -> Figure:
    """The mean as a dot with a bar of one standard deviation to either side, and each seed as a small ring below it."""
    labels = [label for label, _ in dots.rows]
    width = 0.085 * max(map(len, labels)) + INCHES_A_COLUMN * len(dots.columns)
    figure = Figure(figsize=(max(width, 6.0), 0.9 + 0.34 * len(labels)))
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(dots.columns), sharey=True, squeeze=False)[0]
    for column, axis in enumerate(axes):
        cells = [cells[column] for _, cells in dots.rows]
        for place, values in enumerate(cells):
            if values:
                mean, std = spread(values)
                axis.errorbar([mean], [place], xerr=[std], fmt="D", color=COLOURS[0], markersize=6, capsize=3, linewidth=1.6)
                below = [place + 0.27] * len(values)
                axis.plot(values, below, "o", color=LEVEL_COLOURS[1], markerfacecolor="none", markersize=3.5)
        if is_wide(cells):
            axis.set_xscale("log")
            log_ticks(axis.xaxis, *axis.get_xlim())
        if not any(cells):
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=LEVEL_COLOURS[1])
            axis.set_xticks([])
        axis.set_xlabel(dots.columns[column])
        axis.grid(True, color="#E3E3E3", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.1)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    return figure
