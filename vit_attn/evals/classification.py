"""Top-1, top-5 and loss over a split: every image that has a label counts once, and any of its labels is a hit."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vit_attn.evals.evaluator import Evaluator, Outputs, complete, open_split, whole_pass
from vit_attn.models.points import COLLECTION
from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.spec.data import SetSpec
from vit_attn.spec.evals import ClassificationSpec
from vit_attn.spec.run import Knobs, RunSpec, static_of
from vit_attn.train.losses import LOSSES, multi_hot


def classification(spec: RunSpec, prefix: str, own: ClassificationSpec) -> Evaluator:
    steps = spec.eval.steps if own.steps is None else own.steps
    return on_split(spec, prefix, complete(spec, own.data), steps, f"config.evals.{prefix}.data")


def validation(spec: RunSpec) -> Evaluator:
    """config.eval: what every run has, under the name `val`."""
    return on_split(spec, "val", spec.data.split(spec.eval.split), spec.eval.steps, "config.data")


def on_split(spec: RunSpec, prefix: str, data: SetSpec, steps: int, where: str) -> Evaluator:
    source = open_split(spec, data, spec.model.num_classes, where)
    max_labels = data.max_labels or 1
    one = whole_pass(spec, source, max_labels, spec.model.num_classes)
    program, compute = f"classification of {max_labels}", partial(outputs, static_of(spec))
    return Evaluator(prefix, steps, program, compute, {"split": one}, partial(metrics, prefix))


def outputs(
    spec: RunSpec, params: Any, knobs: Knobs, batch: dict[str, Array], points: Any = None
) -> dict[str, Float[Array, "B"]]:
    """For each image: does it count, is the best, is one of the five best logits one of its labels, and its loss.

    `points`: operations that wait in the network (see models.points).
    """
    variables = {"params": params} | ({} if points is None else {COLLECTION: points})
    logits, _ = ViT(spec.model).apply(variables, normalize(batch["image"]), knobs.attention)
    targets = multi_hot(batch["labels"], spec.model.num_classes)
    best = jax.lax.top_k(logits, min(5, spec.model.num_classes))[1]
    hits = jnp.take_along_axis(targets, best, axis=-1) > 0
    return {
        "counts": counts(batch["labels"], batch["mask"]).astype(jnp.float32),
        "accuracy": hits[:, 0].astype(jnp.float32),
        "top5": hits.any(axis=-1).astype(jnp.float32),
        "loss": LOSSES[spec.train.loss](logits, targets),
    }


def counts(labels: Int[Array, "B K"], mask: Float[Array, "B"]) -> Bool[Array, "B"]:
    """An image counts unless it is padding or has no label."""
    return (mask > 0) & (labels >= 0).any(axis=-1)


def metrics(prefix: str, passes: dict[str, list[Outputs]]) -> dict[str, float]:
    """Means over the images that count; summed exactly, so that the size of the batches does not matter."""
    batches = passes["split"]
    columns = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    counted = columns.pop("counts") > 0
    images = int(counted.sum())
    means = {f"{prefix}/{key}": math.fsum(column[counted]) / max(images, 1) for key, column in columns.items()}
    return means | {f"{prefix}/images": float(images)}
