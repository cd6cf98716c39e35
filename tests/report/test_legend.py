"""The legend of a chart in the page."""

from vit_attn.report.page_legend import legend
from vit_attn.report.plot import plots_of
from vit_attn.report.series import Chart, Panel, Point, Series

RELU = Series("relu", (Point(0.0, (1.0,)), Point(1.0, (2.0,))), kin="relu")
TWIN = Series("relu6", RELU.points, kin="relu6")
EMPTY = Series("softmax", (), reference=True)
GONE = Series("identity", (), diverged=(1.0,), kin="identity")
CHART = Chart("fig", "A figure", "alpha", "alpha", "alpha", (Panel("L = 4", (RELU, TWIN, EMPTY, GONE), "accuracy"),))


def test_lines_that_are_not_there_are_not_in_the_legend():
    shown = legend(CHART)
    assert [label for label in ("relu", "relu6", "softmax", "identity") if f'data-label="{label}"' in shown] == [
        "relu",
        "relu6",
        "identity",
    ]


def test_a_line_on_another_is_thinner_so_that_both_show():
    widths = {trace["meta"]: trace["line"]["width"] for trace in plots_of(CHART)[0]["data"] if "line" in trace}
    assert widths["relu"] > widths["relu6"]
