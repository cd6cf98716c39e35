"""arXiv:2309.08586, figure 2: accuracy against alpha, a panel for each data set and size, a line for each h."""

from collections.abc import Sequence

from vit_attn.report.alpha_panels import alpha_chart
from vit_attn.report.collect import Row
from vit_attn.report.group import grouped, line_of, place_of
from vit_attn.report.metric import Metric
from vit_attn.report.plain import plain
from vit_attn.report.series import Chart, NotHere


def chart(rows: Sequence[Row], metric: Metric) -> Chart:
    """Without gate and with qk-layernorm, where runs of both kinds are given; panels in which an h has several alphas.

    Raises NotHere if there is none.
    """
    chosen = plain(rows)
    alphas = {of: {row.alpha for row in runs} for of, runs in grouped(chosen, lambda row: (*place_of(row), row.h)).items()}
    places = {of[:2] for of, values in alphas.items() if len(values) > 1}
    if not places:
        raise NotHere("no h with several alphas")
    shown = [row for row in chosen if place_of(row) in places and (row.alpha is not None or row.h == "softmax")]
    return alpha_chart("fig2", "Accuracy against alpha", shown, metric, line_of)
