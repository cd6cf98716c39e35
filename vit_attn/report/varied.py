"""What distinguishes runs beside h, alpha, L and the seed: a figure needs a line for it, a table a column."""

from collections.abc import Sequence
from typing import Any

from vit_attn.report.collect import Row

AXES = ("model.attention.h", "model.attention.alpha", "seed")  # shown by every report
GEOMETRY = ("model.patch", "model.image_size")  # mostly told by L
SIZES = ("model.width", "model.depth", "model.mlp_dim", "model.heads")  # mostly told by the variant


def varied_within_lengths(rows: Sequence[Row]) -> list[str]:
    """The settings, by dotted name, in which rows of the same L differ, and which neither h, alpha nor the seed tell."""
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(row.length, []).append(row)
    return _telling([key for key in rows[0].settings if any(_differ(group, key) for group in by_length.values())])


def varied_settings(rows: Sequence[Row]) -> list[str]:
    """The same over all rows, whatever their L; what L itself tells is left out."""
    within = varied_within_lengths(rows)
    return _telling([key for key in rows[0].settings if key in within or (key not in GEOMETRY and _differ(rows, key))])


def short_name(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted name; the whole of it where another of `keys` ends in the same."""
    last = key.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key


def values_of(row: Row, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row.settings.get(key) for key in keys)


def _telling(keys: Sequence[str]) -> list[str]:
    """`keys` without those that others tell."""
    told = (*AXES, *SIZES) if "model.variant" in keys else AXES
    return [key for key in keys if key not in told]


def _differ(rows: Sequence[Row], key: str) -> bool:
    return len({repr(row.settings.get(key)) for row in rows}) > 1
