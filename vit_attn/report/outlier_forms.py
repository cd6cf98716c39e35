"""Outliers and quantization of any form of attention, as table 7 of arXiv:2306.12929 has them of its own."""

from collections.abc import Sequence

from vit_attn.report.collect import Row
from vit_attn.report.group import Line, grouped, place_of, with_others
from vit_attn.report.metric import Metric
from vit_attn.report.outliers import (
    MAX_NORM,
    MEAN_KURTOSIS,
    accuracy_column,
    outlier_table,
    quantized_columns,
    was_measured,
)
from vit_attn.report.series import Dots, NotHere

OF_THE_PAPER = ("softmax", "clipped_softmax")


def chart(rows: Sequence[Row], metric: Metric) -> Dots:
    """A row for each h and alpha, and for whatever else varies but the seed. Raises NotHere if table 7 shows it all."""
    if not any(was_measured(row) and row.h not in OF_THE_PAPER for row in rows):
        raise NotHere(f"no form but {' and '.join(OF_THE_PAPER)} whose outliers were measured, or that was quantized")
    lines = with_others(rows, {row.path: Line(_label(row), row.h) for row in rows}, lambda row: "all")
    several = len({place_of(row) for row in rows}) > 1
    ordered = sorted(rows, key=lambda row: (place_of(row), row.h not in OF_THE_PAPER))
    groups = grouped(ordered, lambda row: (f"{row.dataset} {row.size}: " if several else "") + lines[row.path].label)
    columns = (accuracy_column(metric), MAX_NORM, MEAN_KURTOSIS, *quantized_columns(rows))
    return outlier_table("outliers", "Outliers and quantization of all forms", groups, columns)


def _label(row: Row) -> str:
    return row.h if row.alpha is None else f"{row.h} α = {row.alpha:g}"
