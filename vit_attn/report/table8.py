"""arXiv:2306.12929, table 8: clipped softmax over gamma and zeta; softmax is gamma = 0, zeta = 1."""

from collections.abc import Sequence

from vit_attn.report.collect import Row
from vit_attn.report.group import grouped, names_of, place_of
from vit_attn.report.metric import Metric
from vit_attn.report.outliers import MAX_NORM, accuracy_column, outlier_table, quantized_columns
from vit_attn.report.series import Dots, NotHere


def chart(rows: Sequence[Row], metric: Metric) -> Dots:
    """Raises NotHere unless clipped softmax was trained with two pairs of gamma and zeta."""
    chosen = [row for row in rows if row.h in ("softmax", "clipped_softmax") and row.gate == "none"]
    if len({_numbers(row) for row in chosen if row.h == "clipped_softmax"}) < 2:
        raise NotHere("clipped_softmax with fewer than two pairs of gamma and zeta")
    ordered = sorted(chosen, key=lambda row: (place_of(row), row.settings["model.patch_norm"], *_order(row)))
    groups = grouped(ordered, names_of(chosen, _label))
    columns = (accuracy_column(metric), MAX_NORM, *quantized_columns(chosen))
    return outlier_table("table8", "Clipped softmax by γ and ζ", groups, columns)


def _numbers(row: Row) -> tuple[float, float]:
    """(gamma, zeta)."""
    gamma, c, zeta = (row.settings[f"model.attention.{key}"] for key in ("gamma", "gamma_per_length", "zeta"))
    if row.h == "softmax":
        return 0.0, 1.0
    return (gamma or 0.0) - (c or 0.0) / row.length, 1.0 if zeta is None else zeta


def _order(row: Row) -> tuple[bool, float, float]:
    """As the paper's rows: first those of gamma = 0, then zeta = 1, then both; the smaller stretch first."""
    gamma, zeta = _numbers(row)
    return gamma != 0 and zeta != 1, -gamma, zeta


def _label(row: Row) -> str:
    gamma, zeta = _numbers(row)
    return f"γ = {gamma:.4g}, ζ = {zeta:.4g}"
