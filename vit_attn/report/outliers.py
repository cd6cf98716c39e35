"""What tables 7 and 8 of arXiv:2306.12929 are made of: the columns that are measured of each form of attention."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from vit_attn.report.collect import Row
from vit_attn.report.group import missing
from vit_attn.report.metric import Metric
from vit_attn.report.series import Dots, Table, spread

GATES = ("linear", "mlp", "all_heads")  # those of the paper


class Column(NamedTuple):
    """`metrics`: the names under which it may have been measured; the first one that a run has counts."""

    key: str
    label: str
    metrics: tuple[str, ...]


NORM = ("outliers/max_inf_norm", "outliers/block_inf_norm/max_over_layers", "attention_stats/block_inf_norm/max_over_layers")
KURTOSIS = ("outliers/kurtosis", "outliers/block_kurtosis/mean_over_layers", "attention_stats/block_kurtosis/mean_over_layers")
MAX_NORM = Column("max_inf_norm", "max inf norm", NORM)
MEAN_KURTOSIS = Column("kurtosis", "kurtosis", KURTOSIS)
QUANTIZED = r"quant/(w(\d+)a(\d+))/accuracy"


def quantized_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """W8A8, and the other widths that a run was quantized to, wide ones first."""
    found = {match[1]: (-int(match[3]), -int(match[2])) for row in rows for match in _widths(row)} | {"w8a8": (-8, -8)}
    names = sorted(found, key=lambda name: found[name])
    return tuple(Column(f"{name}_accuracy", f"{name.upper()} accuracy (%)", (f"quant/{name}/accuracy",)) for name in names)


def was_measured(row: Row) -> bool:
    """Whether its outliers are known, or it was quantized."""
    return any(name in row.metrics for name in (*NORM, *KURTOSIS)) or bool(_widths(row))


def _widths(row: Row) -> list[re.Match[str]]:
    return [match for name in row.metrics if (match := re.fullmatch(QUANTIZED, name))]


def accuracy_column(metric: Metric) -> Column:
    return Column(metric.name.replace("/", "_"), metric.label, (metric.name,))


def outlier_table(name: str, title: str, groups: dict[str, list[Row]], columns: Sequence[Column]) -> Dots:
    """A row for each group: mean and deviation over seeds of each column; and, as a table, the same in numbers."""
    cells = {label: tuple(_values(rows, column) for column in columns) for label, rows in groups.items()}
    head = ["method", *(part for column in columns for part in (column.key, f"{column.key}_std")), "seeds"]
    body = []
    for label, of in cells.items():
        numbers = [number for values in of for number in (spread(values) if values else (None, None))]
        body.append((label, *numbers, sum(row.state == "done" for row in groups[label])))
    lacking = [line for rows in groups.values() for line in missing(rows, [])]
    for column in columns:
        without = [row.name for rows in groups.values() for row in rows if row.state == "done" and not _value(row, column)]
        if without:
            lacking.append(f"{column.label}: {len(without)} done without {' or '.join(column.metrics)}, first {without[0]}")
    table = Table(name, title, tuple(head), tuple(body), "Mean and standard deviation over seeds.")
    return Dots(name, title, tuple(column.label for column in columns), tuple(cells.items()), (table,), tuple(lacking))


def _values(rows: Sequence[Row], column: Column) -> tuple[float, ...]:
    return tuple(value for row in rows if row.state == "done" for value in _value(row, column))


def _value(row: Row, column: Column) -> list[float]:
    """One value, in percent if it is a share; empty where nothing was measured."""
    name = next((name for name in column.metrics if name in row.metrics), None)
    return [] if name is None else [row.metrics[name] * (100.0 if Metric(name).is_share else 1.0)]
