"""Tables as plotly's figures: a panel for each metric, a row of dots for each setting."""

from typing import Any

from vit_attn.report.look import COLOURS, LEVEL_COLOURS
from vit_attn.report.series import Dots, is_wide, spread

GRID = "#E3E3E3"
Plot = dict[str, Any]


def columns_of(dots: Dots) -> list[Plot]:
    """{"title", "data", "layout"} of each panel; the settings are named left of every one."""
    labels = [label for label, _ in dots.rows]
    plots = []
    for column, title in enumerate(dots.columns):
        cells = {label: cells[column] for label, cells in dots.rows if cells[column]}
        x_axis = {"title": {"text": title}, "gridcolor": GRID, "zeroline": False, "automargin": True}
        x_axis |= {"type": "log", "tickformat": "~g"} if is_wide(list(cells.values())) else {}
        y_axis = {"categoryorder": "array", "categoryarray": labels[::-1], "automargin": True, "gridcolor": GRID}
        y_axis |= {"range": [-0.5, len(labels) - 0.5], "type": "category"}
        layout = {"xaxis": x_axis, "yaxis": y_axis, "height": 110 + 26 * len(labels)}
        plots.append({"title": "" if cells else f"{title}: not measured", "data": _data(cells), "layout": layout})
    return plots


def _data(cells: dict[str, tuple[float, ...]]) -> list[Plot]:
    """Each seed as a ring, and the means with their standard deviations."""
    means = {label: spread(values) for label, values in cells.items()}
    x, y = [value for values in cells.values() for value in values], [label for label, values in cells.items() for _ in values]
    rings: Plot = {"symbol": "circle-open", "size": 7, "color": LEVEL_COLOURS[1]}
    seeds = {"x": x, "y": y, "mode": "markers", "marker": rings, "hoverinfo": "x"}
    bars: Plot = {"array": [std for _, std in means.values()], "color": COLOURS[0]}
    diamonds = {"symbol": "diamond", "size": 9, "color": COLOURS[0]}
    dots: Plot = {"x": [mean for mean, _ in means.values()], "y": list(means), "mode": "markers", "marker": diamonds}
    words = "<b>%{y}</b><br>%{x:.4g} ± %{error_x.array:.2g}<extra></extra>"
    return [seeds, dots | {"error_x": bars, "hovertemplate": words}]
