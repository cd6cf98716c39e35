"""Which checkpoints are kept."""

import math
from collections.abc import Mapping

from vit_attn.spec.run import LoopSpec

Metrics = Mapping[str, float]


def kept(saved: Mapping[int, Metrics], loop: LoopSpec) -> set[int]:
    """Out of the saved steps, each with the metrics as they were then: the newest, every so many steps, and the best."""
    steps = sorted(saved)
    keep = set(steps[-loop.ckpt_keep :])
    if loop.ckpt_keep_every:
        keep |= {step for step in steps if step % loop.ckpt_keep_every == 0}
    best = best_step(saved, loop)
    return keep if best is None else keep | {best}


def best_step(saved: Mapping[int, Metrics], loop: LoopSpec) -> int | None:
    """The one with the best `loop.ckpt_best`, of equals the newest; None where no step has that metric."""
    metric, sign = loop.ckpt_best, 1.0 if loop.ckpt_best_order == "max" else -1.0
    if metric is None:
        return None
    values = {step: sign * metrics[metric] for step, metrics in saved.items() if math.isfinite(metrics.get(metric, math.nan))}
    return max(values, key=lambda step: (values[step], step)) if values else None
