"""arXiv:2306.12929, table 7: vanilla, clipped softmax and gated attention, with and without a norm behind the patches."""

from collections.abc import Sequence

from vit_attn.report.collect import Row
from vit_attn.report.group import grouped, names_of, place_of
from vit_attn.report.metric import Metric
from vit_attn.report.outliers import GATES, MAX_NORM, MEAN_KURTOSIS, accuracy_column, outlier_table, quantized_columns
from vit_attn.report.series import Dots, NotHere


def chart(rows: Sequence[Row], metric: Metric) -> Dots:
    """Raises NotHere if there is neither clipped softmax nor softmax with one of the paper's gates."""
    chosen = [row for row in rows if (row.h, row.gate) in (("softmax", "none"), ("clipped_softmax", "none")) or _gated(row)]
    if not any(row.h == "clipped_softmax" or _gated(row) for row in chosen):
        raise NotHere(f"neither clipped_softmax nor softmax with a gate ({', '.join(GATES)})")
    groups = grouped(sorted(chosen, key=_order), names_of(chosen, _words))
    columns = (accuracy_column(metric), MAX_NORM, MEAN_KURTOSIS, *quantized_columns(chosen))
    return outlier_table("table7", "Outliers and quantization", groups, columns)


def _gated(row: Row) -> bool:
    return row.h == "softmax" and row.gate in GATES


def _order(row: Row) -> tuple[object, ...]:
    """As the paper's rows: vanilla, clipped softmax by gamma, gates; first without the norm of patches."""
    kind = 2 if _gated(row) else int(row.h == "clipped_softmax")
    return (place_of(row), row.settings["model.patch_norm"] != "none", kind, _words(row))


def _words(row: Row) -> str:
    of = {key: row.settings[f"model.attention.{key}"] for key in ("gamma", "gamma_per_length", "zeta", "n_hid", "pi_init")}
    if row.h == "clipped_softmax":
        gamma = f"γ = {of['gamma']:g}" if of["gamma_per_length"] is None else f"γ = −{of['gamma_per_length']:g}/L"
        return f"clipped softmax {gamma}" + ("" if of["zeta"] in (None, 1) else f", ζ = {of['zeta']:g}")
    if not _gated(row):
        return "vanilla"
    hidden = f" n_hid = {of['n_hid']}" if of["n_hid"] is not None else ""
    return f"gated {row.gate}{hidden}" + (f" π = {of['pi_init']:g}" if of["pi_init"] is not None else "")
