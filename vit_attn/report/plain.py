"""Which runs are the paper's ordinary ones: no gate, qk-layernorm, attention that is not clipped."""

from collections.abc import Callable, Sequence

from vit_attn.report.collect import Row


def has_gate(row: Row) -> bool:
    return row.gate != "none"


def has_qk_norm(row: Row) -> bool:
    return row.qk_norm != "none"


def plain(rows: Sequence[Row]) -> list[Row]:
    """Those without a gate if there are any; of these the ones with qk-layernorm, then those without a norm of patches."""
    normed = preferred(preferred(rows, lambda row: not has_gate(row)), has_qk_norm)
    return preferred(normed, lambda row: row.settings["model.patch_norm"] == "none")


def preferred(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> list[Row]:
    return [row for row in rows if wanted(row)] or list(rows)


def with_and_without(rows: Sequence[Row], has: Callable[[Row], bool]) -> list[Row]:
    """The runs of every (data set, size, h) of which there are both kinds; empty where there is none."""
    kinds: dict[tuple[str, str, str], set[bool]] = {}
    for row in rows:
        kinds.setdefault((row.dataset, row.size, row.h), set()).add(has(row))
    return [row for row in rows if len(kinds[row.dataset, row.size, row.h]) == 2]
