"""What distinguishes runs beside h, alpha, L and the seed: a figure needs a line for it, a table a column."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from vit_attn.report.collect import Row
from vit_attn.spec.run import free_settings

AXES = ("model.attention.h", "model.attention.alpha", "seed")  # shown by every report
GEOMETRY = ("model.patch", "model.image_size")  # mostly told by L
SIZES = ("model.width", "model.depth", "model.mlp_dim", "model.heads")  # mostly told by the variant


def varied_within(rows: Sequence[Row], group_of: Callable[[Row], Hashable]) -> list[str]:
    """The settings, by dotted name, in which rows of the same group differ, and which neither h, alpha nor the seed tell.

    What may change when a run is resumed, and what is measured besides, makes no difference.
    """
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    return _telling([key for key in _settings(rows) if any(_differ(group, key) for group in groups.values())])


def varied_settings(rows: Sequence[Row]) -> list[str]:
    """The same among rows of one L, and over all rows; what L itself tells is left out."""
    within = varied_within(rows, lambda row: row.length)
    return _telling([key for key in _settings(rows) if key in within or (key not in GEOMETRY and _differ(rows, key))])


def short_name(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted name; the whole of it where another of `keys` ends in the same."""
    last = key.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key


def values_of(row: Row, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row.settings.get(key) for key in keys)


def words_of(row: Row, keys: Sequence[str]) -> str:
    """ "peak_lr 0.001, pool tok"; without settings that are None, as a gamma where nothing is clipped."""
    values = zip(keys, values_of(row, keys), strict=True)
    return ", ".join(f"{short_name(key, keys)} {value}" for key, value in values if value is not None)


def distinct(rows: Sequence[Row]) -> list[Row]:
    """`rows` without runs that another sweep has too: the same run twice is not two seeds. One that is done goes first."""
    keys = _settings(rows)
    found: dict[str, Row] = {}
    for row in rows:
        key = repr(values_of(row, keys))
        if key not in found or (row.state == "done" and found[key].state != "done"):
            found[key] = row
    return list(found.values())


def _settings(rows: Sequence[Row]) -> list[str]:
    free = free_settings()
    names = dict.fromkeys(key for row in rows for key in row.settings)
    return [key for key in names if key not in free and not key.startswith("evals.")]


def _telling(keys: Sequence[str]) -> list[str]:
    """`keys` without those that others tell."""
    told = (*AXES, *SIZES) if "model.variant" in keys else AXES
    return [key for key in keys if key not in told]


def _differ(rows: Sequence[Row], key: str) -> bool:
    first = rows[0].settings.get(key)
    return any(row.settings.get(key) != first for row in rows)
