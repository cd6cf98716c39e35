"""Evaluators over the members of a pack: each image is read once and serves all members."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import jax

from vit_attn.data.pipeline import pass_batches
from vit_attn.data.workers import Workers
from vit_attn.evals.evaluator import Evaluator, Outputs
from vit_attn.loop.program import Program
from vit_attn.spec.data import DataSpec
from vit_attn.spec.run import Knobs

IN_FLIGHT = 3  # batches on the devices at once: the host must not run ahead of them without bound


class Interrupted(Exception):  # noqa: N818  nothing is wrong
    """An evaluation that was left off."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def evaluate(
    evaluator: Evaluator,
    models: Sequence[tuple[Any, Knobs]],
    program: Program,
    data: DataSpec,
    workers: Workers,
    stop: Callable[[], str],
) -> list[dict[str, float]]:
    """The evaluator's metrics for each of the (parameters, knobs). Raises Interrupted where `stop`, asked after each batch,
    gives a reason."""
    outputs: list[dict[str, list[Outputs]]] = [defaultdict(list) for _ in models]
    for name, one in evaluator.passes.items():
        rows = program.local_rows(one.batch_images)
        with closing(pass_batches(data, one, workers, rows)) as batches:
            for batch in batches:
                arrays = program.put(batch, one.batch_images)
                for (params, knobs), found in zip(models, outputs, strict=True):
                    found[name].append(program.evaluate(evaluator, params, knobs, arrays))  # type: ignore[arg-type]
                jax.block_until_ready([found[name][-IN_FLIGHT:][0] for found in outputs])
                if reason := stop():
                    raise Interrupted(reason)
    return [evaluator.metrics(jax.device_get(dict(found))) for found in outputs]
