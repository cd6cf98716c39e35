"""arXiv:2309.08586, figure 2: accuracy against alpha, a panel for each data set and size, a line for each h."""

from collections.abc import Sequence

from vit_attn.report.alpha_panels import alpha_chart
from vit_attn.report.collect import Row
from vit_attn.report.group import line_of, place_of
from vit_attn.report.metric import Metric
from vit_attn.report.plain import plain
from vit_attn.report.series import Chart, NotHere


def chart(rows: Sequence[Row], metric: Metric) -> Chart:
    """Without gate and with qk-layernorm, where runs of both kinds are given. Raises NotHere if no h has several alphas."""
    chosen = plain(rows)
    alphas: dict[str, set[float]] = {}
    for row in chosen:
        if row.alpha is not None:
            alphas.setdefault(row.h, set()).add(row.alpha)
    if max(map(len, alphas.values()), default=0) < 2:
        raise NotHere("no h with several alphas")
    places = {place_of(row) for row in chosen if row.alpha is not None}
    shown = [row for row in chosen if row.alpha is not None or (row.h == "softmax" and place_of(row) in places)]
    return alpha_chart("fig2", "Accuracy against alpha", shown, metric, line_of)
