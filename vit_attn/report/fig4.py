"""arXiv:2309.08586, figure 4: the effect of a gate. As figure 2, each h with and without it; and what the gate costs."""

from collections.abc import Sequence

from vit_attn.report.alpha_panels import alpha_chart, cost_table
from vit_attn.report.collect import Row
from vit_attn.report.group import Line, place_of
from vit_attn.report.metric import Metric
from vit_attn.report.plain import has_gate, has_qk_norm, preferred, with_and_without
from vit_attn.report.series import Chart, NotHere


def chart(rows: Sequence[Row], metric: Metric) -> Chart:
    """Raises NotHere if no h that has an alpha was trained both ways."""
    normed = preferred(rows, has_qk_norm)
    twins = with_and_without([row for row in normed if row.alpha is not None], has_gate)
    if not twins:
        raise NotHere("no h with an alpha both with and without a gate (model.attention.gate)")
    places = {place_of(row) for row in twins}
    levels = [row for row in normed if row.h == "softmax" and place_of(row) in places and not has_gate(row)]
    cost = cost_table("fig4", twins, has_gate, "gate")
    return alpha_chart("fig4", "The effect of a gate", [*levels, *twins], metric, _line, [cost])


def _line(row: Row) -> Line:
    variant = f", gate {row.gate}" if has_gate(row) else ""
    return Line(row.h + variant, row.h, variant)
