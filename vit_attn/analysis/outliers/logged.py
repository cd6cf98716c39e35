"""Outliers over training, where an evaluator of the type attention_stats has logged them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

QUANTITIES = ("block_inf_norm", "block_kurtosis", "outlier_share")
LOGGED = re.compile(rf"(.+)/({'|'.join(QUANTITIES)})/layer_(\d+)")


class Logged(NamedTuple):
    evaluator: str  # its name in config.evals
    steps: list[int]
    by_layer: dict[str, Float[np.ndarray, "steps layers"]]  # of QUANTITIES, all of the blocks' outputs


def logged_outliers(rows: Sequence[dict[str, float]]) -> Logged | None:
    """Of the first such evaluator by name. None where there is none."""
    names = sorted({match[1] for row in rows for key in row if (match := LOGGED.fullmatch(key))})
    if not names:
        return None
    found = {int(row["step"]): layers for row in rows if (layers := _of(names[0], row))}
    steps = sorted(found)
    by_layer = {
        quantity: np.array([[value for _, value in sorted(found[step][quantity].items())] for step in steps])
        for quantity in QUANTITIES
        if all(quantity in found[step] for step in steps)
    }
    return Logged(names[0], steps, by_layer)


def _of(evaluator: str, row: dict[str, float]) -> dict[str, dict[int, float]]:
    """{quantity: {layer: value}} of one row."""
    layers: dict[str, dict[int, float]] = {}
    for key, value in row.items():
        if (match := LOGGED.fullmatch(key)) and match[1] == evaluator:
            layers.setdefault(match[2], {})[int(match[3])] = value
    return layers
