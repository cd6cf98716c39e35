"""The figures by name. A new one is a file with `chart(rows, metric)` and its line here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vit_attn.report import fig1, fig2, fig3, fig4, init, outlier_forms, overview, table7, table8
from vit_attn.report.collect import Row
from vit_attn.report.metric import Metric
from vit_attn.report.series import Drawing, NotHere
from vit_attn.report.varied import distinct

Maker = Callable[[Sequence[Row], Metric, Sequence[Path]], Drawing]
OVERVIEW: Maker = lambda rows, metric, paths: overview.chart(rows, metric)
FIGURES: dict[str, Maker] = {
    "fig1": lambda rows, metric, paths: fig1.chart(rows, metric),
    "fig2": lambda rows, metric, paths: fig2.chart(rows, metric),
    "fig3": lambda rows, metric, paths: fig3.chart(rows, metric),
    "fig4": lambda rows, metric, paths: fig4.chart(rows, metric),
    "table7": lambda rows, metric, paths: table7.chart(rows, metric),
    "table8": lambda rows, metric, paths: table8.chart(rows, metric),
    "outliers": lambda rows, metric, paths: outlier_forms.chart(rows, metric),
    "init": lambda rows, metric, paths: init.chart(rows, paths),
}
ALL = "all"


class Drawings(NamedTuple):
    """`absent`: why a figure is not drawn, by its name."""

    drawn: list[Drawing]
    absent: dict[str, str]


def drawings(names: Sequence[str], rows: Sequence[Row], metric: Metric, paths: Sequence[Path]) -> Drawings:
    """The overview, and those of `names` (empty, or "all": every one) for which there are runs."""
    wanted = list(FIGURES) if not names or ALL in names else list(dict.fromkeys(names))
    rows = distinct(rows)
    drawn: list[Drawing] = []
    absent = {}
    for name, make in {"figure": OVERVIEW, **{name: FIGURES[name] for name in wanted}}.items():
        try:
            drawn.append(make(rows, metric, paths))
        except NotHere as reason:
            absent[name] = str(reason)
    return Drawings(drawn, absent)
