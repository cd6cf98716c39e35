"""One matrix product of a training step, timed: what benchmarks/products.py and its process of PyTorch share."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

REPEATS = 4  # in a row


def arrays(rows: int, inner: int, columns: int) -> list[np.ndarray]:
    """x, w, dy of y = x w."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in ((rows, inner), (inner, columns), (rows, columns))]


def seconds_of(run: Callable[[], Any]) -> float:
    """Of one product, `run` being REPEATS of them; once before, for caches and pages."""
    run()
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / REPEATS
