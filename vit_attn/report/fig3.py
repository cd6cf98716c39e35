"""arXiv:2309.08586, figure 3: the effect of qk-layernorm. As figure 2, each h with and without it."""

from collections.abc import Sequence

from vit_attn.report.alpha_panels import alpha_chart
from vit_attn.report.collect import Row
from vit_attn.report.group import Line
from vit_attn.report.metric import Metric
from vit_attn.report.plain import has_gate, has_qk_norm, preferred, with_and_without
from vit_attn.report.series import Chart, NotHere


def chart(rows: Sequence[Row], metric: Metric) -> Chart:
    """Raises NotHere if no h was trained both ways."""
    twins = with_and_without(preferred(rows, lambda row: not has_gate(row)), has_qk_norm)
    if not twins:
        raise NotHere("no h both with and without qk-layernorm (model.attention.qk_norm)")
    return alpha_chart("fig3", "The effect of qk-layernorm", twins, metric, _line)


def _line(row: Row) -> Line:
    variant = "" if row.qk_norm == "head" else ", no qk-norm" if row.qk_norm == "none" else f", qk-norm {row.qk_norm}"
    return Line(row.h + variant, row.h, variant)
