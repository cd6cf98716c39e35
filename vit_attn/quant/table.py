"""Results as a table and a line."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from vit_attn.quant.files import INT8
from vit_attn.quant.measure import FLOAT
from vit_attn.spec.quant import QuantSpec, told

HEAD = ("member", "estimator", "accuracy", "std", "change", "loss", "")


def results_table(found: Mapping[str, dict[str, Any]], quant: QuantSpec) -> Table:
    """Of each member: float32, then the estimators, the best one marked, and the INT8 member where there is one."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in HEAD:
        table.add_column(name, justify="left" if name in ("member", "estimator", "") else "right", no_wrap=True)
    for member, results in found.items():
        exact = results[FLOAT]
        table.add_row(member, FLOAT, f"{exact['accuracy']:.4f}", "", "", f"{exact['loss']:.4f}", "")
        for name, one in results["estimators"].items():
            best = name == results["best"]
            change = one["accuracy"] - exact["accuracy"]
            cells = (f"{one['accuracy']:.4f}", f"{one['accuracy_std']:.4f}", f"{change:+.4f}", f"{one['loss']:.4f}")
            table.add_row("", f"{quant.name} {name}", *cells, "best" if best else "", style="green" if best else "")
        if (one := results.get(INT8)) is not None:
            cells = (f"{one['accuracy']:.4f}", "", f"{one['accuracy'] - exact['accuracy']:+.4f}", f"{one['loss']:.4f}")
            table.add_row("", f"{quant.name} {results['best']}, integers", *cells, "")
    return table


def results_line(results: dict[str, Any], quant: QuantSpec) -> str:
    """ "w8a8 accuracy 0.8683 +- 0.0006 (float32 0.8700): running_min_max on 3 x 16 x 32 images of 'train'; ..."."""
    best = results["estimators"][results["best"]]
    accuracy = f"{quant.name} accuracy {best['accuracy']:.4f} +- {best['accuracy_std']:.4f}"
    how = told(quant, results["best"], results["calibration_split"], results["excluded"])
    return f"{accuracy} ({FLOAT} {results[FLOAT]['accuracy']:.4f}): {how}"
