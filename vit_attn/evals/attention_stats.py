"""What attention weights and activations look like, layer by layer, over the first images of a split.

Metrics are PREFIX/QUANTITY/layer_00 (the first block), layer_01, ... and PREFIX/QUANTITY/REDUCTION_over_layers or all_layers:

    weight_mean_times_L        mean attention weight times the number of keys
    weight_zero_share          share of weights that are exactly 0
    weight_entropy             of a row of weights, in nats; for softmax and softmax1 only
    logit_max_abs              max |q.k / sqrt(d)| over the images
    block_inf_norm             max |x| of an image's block output (the residual stream), averaged over images
    block_kurtosis             Pearson kurtosis of an image's block output (Gaussian: 3), averaged over images
    ffn_inf_norm, ffn_kurtosis                  the same of the MLP's output, before it is added to the residual stream
    outlier_share              share of a block output's numbers further than 6 std from the mean of their image
    outlier_top10_dims_share   share of all outliers that lies in the 10 channels with the most of them; 0 if there are none
    outlier_top_dim            the channel with the most outliers, from 0; -1 if there are none
    outlier_top10_tokens_share, outlier_top_token    the same for positions of the sequence, where a CLS token is 0

Infinity norm and kurtosis are those of arXiv:2306.12929: the tensor is an image's L * D numbers, the CLS token among them;
means over images come first, then the maximum of the norms, or the mean of the kurtoses, over layers. Both tensors are
measured because the paper does not say which one its ViT's numbers are of.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_attn.evals.evaluator import Evaluator, Outputs, complete, open_split, whole_pass
from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.spec.evals import AttentionStatsSpec
from vit_attn.spec.run import Knobs, RunSpec, static_of

TOP = 10  # channels, or positions
OVER_LAYERS = {  # quantity: what sums it up
    "weight_mean_times_L": "mean",
    "weight_zero_share": "mean",
    "weight_entropy": "mean",
    "logit_max_abs": "max",
    "block_inf_norm": "max",
    "block_kurtosis": "mean",
    "ffn_inf_norm": "max",
    "ffn_kurtosis": "mean",
}
MAXIMA = ("logit_max_abs",)  # over images too
COUNTS = ("outliers_by_dim", "outliers_by_token")


def attention_stats(spec: RunSpec, prefix: str, own: AttentionStatsSpec) -> Evaluator:
    data = complete(spec, own.data)
    source = open_split(spec, data, None, f"config.evals.{prefix}.data")
    max_labels = data.max_labels or 1
    first = whole_pass(spec, source, max_labels, None, own.images)
    steps = spec.eval.steps if own.steps is None else own.steps
    program, compute = f"attention_stats of {max_labels}", partial(outputs, static_of(spec))
    return Evaluator(prefix, steps, program, compute, {"split": first}, partial(metrics, prefix))


def outputs(spec: RunSpec, params: Any, knobs: Knobs, batch: dict[str, Array]) -> dict[str, Array]:
    """Each image's numbers [B, layers], and outliers counted over the images that count: [layers, D] and [layers, L]."""
    _, found = ViT(spec.model).apply({"params": params}, normalize(batch["image"]), knobs.attention, mutable=["stats"])
    counted = batch["mask"] > 0
    result = {"counts": counted.astype(jnp.float32)}
    for name, value in by_layer(found["stats"]["Transformer"], spec.model.depth).items():
        result[name] = jnp.where(counted[None, :, None], value, 0).sum(axis=1) if name in COUNTS else value.T
    return result


def by_layer(stats: Any, depth: int) -> dict[str, Array]:
    """What blocks and their attentions recorded, by name: [layers, B, ...]."""
    blocks = [stats[f"encoderblock_{layer}"] for layer in range(depth)]
    blocks = [{**block, **block["MultiHeadDotProductAttention_0"]} for block in blocks]
    return {name: jnp.stack([block[name] for block in blocks]) for name in (*OVER_LAYERS, *COUNTS) if name in blocks[0]}


class Outliers(NamedTuple):
    """How many numbers of the block outputs lie beyond 6 std, over `images` images: what a map of them is drawn from."""

    by_dim: Int[np.ndarray, "layers D"]
    by_token: Int[np.ndarray, "layers L"]  # the CLS token, if there is one, first
    images: int


def outliers_of(batches: Sequence[Outputs]) -> Outliers:
    by_dim, by_token = (np.stack([batch[name] for batch in batches]).sum(axis=0, dtype=np.int64) for name in COUNTS)
    return Outliers(by_dim, by_token, sum(int(batch["counts"].sum()) for batch in batches))


def metrics(prefix: str, passes: dict[str, list[Outputs]]) -> dict[str, float]:
    """Over all counted images, in float64 and summed exactly: the size of the batches does not matter."""
    batches = passes["split"]
    counted = np.concatenate([batch["counts"] for batch in batches]) > 0
    found: dict[str, float] = {}
    for name, reduction in OVER_LAYERS.items():
        if name in batches[0]:
            images = np.concatenate([batch[name] for batch in batches])[counted].astype(np.float64)
            found |= _layers(name, _of_layers(name, images), reduction)
    found |= _outlier_metrics(outliers_of(batches))
    return {f"{prefix}/{name}": value for name, value in found.items()} | {f"{prefix}/images": float(counted.sum())}


def _of_layers(name: str, images: Float[np.ndarray, "N layers"]) -> list[float]:
    """The maximum, or the exactly rounded mean, of each column."""
    if name in MAXIMA:
        return [float(np.max(column, initial=0.0)) for column in images.T]
    return [math.fsum(column) / max(len(column), 1) for column in images.T]


def _layers(name: str, values: Sequence[float], reduction: str) -> dict[str, float]:
    layers = {f"{name}/layer_{layer:02d}": value for layer, value in enumerate(values)}
    over = np.max(values) if reduction == "max" else np.mean(values)
    return {**layers, f"{name}/{reduction}_over_layers": float(over)}


def _outlier_metrics(outliers: Outliers) -> dict[str, float]:
    """Of each layer, and of the counts of all layers together."""
    found = {}
    layers, dims = outliers.by_dim.shape
    numbers = outliers.images * dims * outliers.by_token.shape[1]
    of_layers = zip(outliers.by_dim, outliers.by_token, strict=True)
    parts = [(f"layer_{layer:02d}", *of_layer, numbers) for layer, of_layer in enumerate(of_layers)]
    parts.append(("all_layers", outliers.by_dim.sum(axis=0), outliers.by_token.sum(axis=0), layers * numbers))
    for name, by_dim, by_token, among in parts:
        found[f"outlier_share/{name}"] = int(by_dim.sum()) / max(among, 1)
        for key, counts in {"dim": by_dim, "token": by_token}.items():
            found[f"outlier_top{TOP}_{key}s_share/{name}"] = top_share(counts)
            found[f"outlier_top_{key}/{name}"] = float(np.argmax(counts)) if counts.any() else -1.0
    return found


def top_share(counts: Int[np.ndarray, "n"], top: int = TOP) -> float:  # noqa: F821
    """The share of the `top` largest counts in the sum of all; 0 if there is nothing to count."""
    return int(np.sort(counts)[-top:].sum()) / max(int(counts.sum()), 1)
