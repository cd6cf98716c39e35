"""Statistics of a trained network over images, from what stands at its points (see models.points): image by image, as sums.

Names of tensors: block: a block's output, the residual stream behind it (the point sum_1). ffn: its MLP's output, before
LayerScale and the sum. attention: the output projection's. norm_0, norm_1: the LayerNorms before both. last_norm.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vit_attn.data.batch import Batch
from vit_attn.evals.attention_stats import COUNTS, Outliers, outliers_of
from vit_attn.models.points import COLLECTION
from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.ops.moments import infinity_norm, kurtosis, outliers
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, knobs_of, static_of

ATTENTION = "MultiHeadDotProductAttention_0"
FAMILIES = {  # of tensors, one a layer, in the order in which an image meets them: where it stands in a block
    "norm_0": ("norm_0",),
    "attention": (ATTENTION, "output"),
    "norm_1": ("norm_1",),
    "ffn": ("MlpBlock_0", "output"),
    "block": ("sum_1",),
}
LAST = "last_norm"
EVERY_HEAD = ("focus", "mass", "value_norm", "value_norm_elsewhere", "update_norm", "update_norm_elsewhere")


@dataclass(frozen=True)
class Statistics:
    """By family of tensors; `has_outliers` is of the blocks' outputs. `heads`: see `_of_heads` ("focus" has all layers)."""

    images: int
    norms: dict[str, Float[np.ndarray, "N layers"]]
    kurtoses: dict[str, Float[np.ndarray, "N layers"]]
    outliers: dict[str, Outliers]
    has_outliers: Bool[np.ndarray, "N layers"]
    heads: dict[str, Float[np.ndarray, "N layers-1 H"]]


def at_points(model: ModelSpec, params: Any, numbers: Any, images: Array) -> dict[str, Any]:
    """{"encoderblock_0": {"sum_1": ..., ...}, ..., "last_norm": ...} of images (bytes). What is not used is not computed.

    Layers one by one: a loop would keep what all of them have at all points.
    """
    model = replace(model, scan_layers=False, remat="none")
    _, found = ViT(model).apply({"params": params}, normalize(images), numbers, mutable=[COLLECTION])
    points: dict[str, Any] = found[COLLECTION]["Transformer"]
    return points


def measure(spec: RunSpec, params: Any, batches: Iterable[Batch]) -> Statistics:
    """Over all images whose mask is 1. Raises UserError for activations that are not finite."""
    numbers = jax.tree.map(np.float32, knobs_of(spec).attention)
    model: ModelSpec = static_of(spec.model)
    found = [jax.device_get(_look(model, params, numbers, batch["image"], batch["mask"])) for batch in batches]
    families = [*FAMILIES, LAST]
    counts = {
        f: outliers_of([{"counts": one["counts"], **{name: one[name][f] for name in COUNTS}} for one in found])
        for f in families
    }
    whole = {name: _joined([one[name] for one in found], found) for name in ("norms", "kurtoses", "has_outliers", "heads")}
    statistics = Statistics(outliers=counts, **whole, images=counts["block"].images)
    _check_finite(statistics)
    return statistics


@partial(jax.jit, static_argnums=0)
def _look(model: ModelSpec, params: Any, numbers: Any, images: Array, mask: Array) -> dict[str, Any]:
    """Of each image [B, layers(, H)], and the counts of outliers summed over the images that count."""
    points = at_points(model, params, numbers, images)
    blocks = [points[f"encoderblock_{layer}"] for layer in range(model.depth)]
    tensors = {family: [_at(block, path) for block in blocks] for family, path in FAMILIES.items()} | {LAST: [points[LAST]]}
    far = {family: [outliers(x) & (mask > 0)[:, None, None] for x in xs] for family, xs in tensors.items()}
    tokens = [one.any(axis=-1) for one in far["block"]]
    return {
        "counts": mask,
        "norms": {family: _layers([infinity_norm(x) for x in xs]) for family, xs in tensors.items()},
        "kurtoses": {family: _layers([kurtosis(x) for x in xs]) for family, xs in tensors.items()},
        "outliers_by_dim": {f: jnp.stack([one.sum(axis=(0, 1), dtype=jnp.int32) for one in far[f]]) for f in far},
        "outliers_by_token": {f: jnp.stack([one.sum(axis=(0, 2), dtype=jnp.int32) for one in far[f]]) for f in far},
        "has_outliers": _layers([one.any(axis=-1) for one in tokens]),
        "heads": _of_heads([block[ATTENTION] for block in blocks], tokens, model.heads),
    }


def _of_heads(attentions: list[dict[str, Array]], tokens: list[Bool[Array, "B L"]], heads: int) -> dict[str, Array]:
    """What the heads of each block make of the tokens that have outliers when they come to it, behind the block before.

    focus                        [B, layers, H]: the largest share of the head's attention mass, sum |w_ij|, that one token gets
    mass                         [B, layers-1, H]: the share that the tokens with outliers get
    value_norm, update_norm      the mean |v_j|, and mean |update_i| (see `update_of`), of tokens with outliers; 0 without any
    ..._elsewhere                of all others
    """
    received = [jnp.abs(one["weights"]).sum(axis=2) for one in attentions]
    rows: dict[str, list[Array]] = {name: [] for name in EVERY_HEAD}
    for mass in received:
        rows["focus"].append(_ratio(mass.max(axis=-1), mass.sum(axis=-1)))
    for one, mass, far in zip(attentions[1:], received[1:], tokens[:-1], strict=True):
        inside = far[:, None].astype(jnp.float32)
        rows["mass"].append(_ratio((mass * inside).sum(axis=-1), mass.sum(axis=-1)))
        for name, x in (("value_norm", one["v"]), ("update_norm", update_of(one, heads))):
            norms = jnp.linalg.norm(x.astype(jnp.float32), axis=-1).swapaxes(1, 2)
            rows[name].append(_ratio((norms * inside).sum(axis=-1), inside.sum(axis=-1)))
            rows[f"{name}_elsewhere"].append(_ratio((norms * (1 - inside)).sum(axis=-1), (1 - inside).sum(axis=-1)))
    none = jnp.zeros((len(received[0]), 0, heads))
    return {name: _layers(values) if values else none for name, values in rows.items()}


def update_of(attention: dict[str, Array], heads: int) -> Float[Array, "B L H d"]:
    """What each head gives to the output projection: sum_j w_ij v_j, behind the gate if there is one."""
    flat = attention["gated" if "gated" in attention else "context"]
    return flat.reshape(*flat.shape[:2], heads, -1)


def _ratio(part: Array, whole: Array) -> Array:
    return part / jnp.where(whole > 0, whole, 1.0)


def _at(block: dict[str, Any], path: tuple[str, ...]) -> Array:
    found: Any = block
    for key in path:
        found = found[key]
    return found


def _layers(values: list[Float[Array, "B ..."]]) -> Float[Array, "B layers ..."]:
    return jnp.stack(values, axis=1)


def _joined(parts: list[Any], found: list[dict[str, Any]]) -> Any:
    """One array, or one of each name, of the images that count."""
    counted = np.concatenate([one["counts"] for one in found]) > 0
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[counted], *parts)


def _check_finite(statistics: Statistics) -> None:
    """Raises UserError with the first tensor on an image's way."""
    for layer in range(statistics.norms["block"].shape[1]):
        for family in FAMILIES:
            if not np.isfinite((statistics.norms[family][:, layer], statistics.kurtoses[family][:, layer])).all():
                raise UserError(f"{family} of layer {layer} has numbers that are not finite (has the run diverged?)")
