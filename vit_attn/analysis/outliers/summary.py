"""Several runs in one table: mean and standard deviation over seeds (of n - 1; 0 of one), as Table 7 of arXiv:2306.12929.

A row for each setting of everything but the seed. Accuracies of quantized forms are those of RUN/quant/*/results.json, in their
best estimator; their spread is over all seeds and calibration subsets together, as the paper's.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Printed

from vit_attn.analysis.outliers.members import Member
from vit_attn.analysis.outliers.metrics import PREFIX
from vit_attn.analysis.outliers.quantized import Quantized
from vit_attn.report.table import PLAIN_WIDTH
from vit_attn.report.varied import short_name
from vit_attn.spec.run import flat
from vit_attn.store.run_dir import write_json

LOGGED = {"accuracy": ("val/accuracy", 100.0), "core_hours": ("speed/core_hours", 1.0)}  # column: metric, in percent or not
MEASURED = ("max_inf_norm", "kurtosis")
PRINTED = (*MEASURED, "core_hours")
COLUMNS = (*MEASURED, "ffn_max_inf_norm", "ffn_kurtosis", "all_kurtosis", "share", "top10_dims_share")


@dataclass(frozen=True)
class Method:
    """One row. `values` by column: of each seed, or of each seed and calibration subset."""

    settings: dict[str, Any]
    members: list[str] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        words = {short_name(key, [*self.settings]): value for key, value in self.settings.items()}
        return " ".join(f"{key}={_short(value)}" for key, value in words.items() if value is not None) or "all"

    def spread(self, column: str) -> tuple[float, float] | None:
        values = self.values.get(column, [])
        if not values:
            return None
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len({*values}) > 1 else 0.0


def summary_of(
    found: Mapping[Member, Mapping[str, float]], quantized: Mapping[Member, Mapping[str, Quantized]]
) -> list[Method]:
    """From the metrics of each member, and the accuracies of its quantized forms, in the order in which members come."""
    settings = {member: _settings(member) for member in found}
    varied = [key for key in next(iter(settings.values())) if len({repr(of.get(key)) for of in settings.values()}) > 1]
    methods: dict[str, Method] = {}
    for member, metrics in found.items():
        own = {key: settings[member][key] for key in varied}
        method = methods.setdefault(repr(own), Method(own))
        method.members.append(member.name)
        for column, values in _values(member, metrics, quantized[member]).items():
            method.values.setdefault(column, []).extend(values)
    return list(methods.values())


def write_summary(folder: Path, methods: Sequence[Method], quantized: Mapping[str, Quantized]) -> str:
    """summary.csv and summary.json; and the table, with how it was quantized, to be printed."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(column for method in methods for column in method.values))
    with open(folder / "summary.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["method", *(name for column in columns for name in (column, f"{column}_std")), "seeds"])
        for method in methods:
            cells = [cell for column in columns for cell in (method.spread(column) or ("", ""))]
            writer.writerow([method.label, *cells, len(method.members)])
    rows = [
        {
            "method": m.label,
            "settings": m.settings,
            "members": m.members,
            "values": m.values,
            "spread": {c: m.spread(c) for c in columns},
        }
        for m in methods
    ]
    how = {name: one.how for name, one in quantized.items()}
    write_json(folder / "summary.json", {"std": "of n - 1", "quantized": how, "rows": rows})
    told = "".join(f"{name}: {text}\n" for name, text in how.items())
    return f"{_printed(methods, columns)}{told}Summary: {folder / 'summary.csv'}"


def _settings(member: Member) -> dict[str, Any]:
    """All that can make a difference to results, by dotted name."""
    values = flat(member.spec)
    return {
        key: value
        for key, value in values.items()
        if key != "seed" and not key.startswith(("loop.", "evals.", "mesh.", "rules."))
    }


def _values(member: Member, metrics: Mapping[str, float], quantized: Mapping[str, Quantized]) -> dict[str, list[float]]:
    """By column. Accuracy is in percent; core-hours are those of training (for Table 11's overhead)."""
    logged = member.run_dir.status().metrics
    found = {name: [times * logged[metric]] for name, (metric, times) in LOGGED.items() if metric in logged}
    found |= {name: [metrics[f"{PREFIX}/{name}"]] for name in COLUMNS}
    return {**found, **{f"{name}_accuracy": one.accuracies for name, one in quantized.items()}}


def _printed(methods: Sequence[Method], columns: Sequence[str]) -> str:
    columns = [column for column in columns if column in PRINTED or column.endswith("accuracy")]
    table = Printed(box=None, header_style="bold", padding=(0, 1))
    for name in ("method", *columns, "seeds"):
        table.add_column(name.replace("_", "\n"), justify="left" if name == "method" else "right", no_wrap=name != "method")
    for method in methods:
        table.add_row(method.label, *(_cell(method, column) for column in columns), str(len(method.members)))
    console = Console(width=PLAIN_WIDTH, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _cell(method: Method, column: str) -> str:
    spread = method.spread(column)
    if spread is None:
        return "-"
    return f"{spread[0]:.4g} ± {spread[1]:.2g}" if len(method.values[column]) > 1 else f"{spread[0]:.4g}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
