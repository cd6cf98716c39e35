"""Infinity norms over training, where an evaluator of the type attention_stats has logged them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LOGGED = re.compile(r"(.+)/block_inf_norm/layer_(\d+)")


class Logged(NamedTuple):
    evaluator: str  # its name in config.evals
    steps: list[int]
    norms: Float[np.ndarray, "steps layers"]


def logged_norms(rows: Sequence[dict[str, float]]) -> Logged | None:
    """Of the blocks' outputs; of the first such evaluator by name. None where there is none."""
    names = sorted({match[1] for row in rows for key in row if (match := LOGGED.fullmatch(key))})
    if not names:
        return None
    found: dict[int, list[float]] = {}
    for row in rows:
        layers = {int(m[2]): value for key, value in row.items() if (m := LOGGED.fullmatch(key)) and m[1] == names[0]}
        if layers:
            found[int(row["step"])] = [layers[layer] for layer in sorted(layers)]
    steps = sorted(found)
    return Logged(names[0], steps, np.array([found[step] for step in steps]))
