"""Heads on a few images: what they attend to, the values there, and what they make of them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vit_attn.analysis.outliers.measure import ATTENTION, Statistics, at_points, update_of
from vit_attn.analysis.outliers.metrics import Heads
from vit_attn.ops.moments import outliers
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, knobs_of, static_of

SAMPLES = 4


@dataclass(frozen=True)
class Sample:
    """`outliers`: how many a token has when it comes to the heads' block; -1 in the first block, before which no one counts."""

    model: ModelSpec
    heads: Heads
    indices: list[int]  # of the images in the split
    pixels: UInt8[np.ndarray, "n Y X 3"]
    outliers: Int[np.ndarray, "n L"]
    weights: Float[np.ndarray, "n H L L"]  # of heads.numbers, as all that follows
    values: Float[np.ndarray, "n H L d"]
    updates: Float[np.ndarray, "n H L d"]  # see measure.update_of

    @property
    def received(self) -> Float[np.ndarray, "n H L"]:
        """Attention weight times L that a token receives, averaged over all queries."""
        return self.weights.mean(axis=2) * self.weights.shape[-1]

    @property
    def value_norms(self) -> Float[np.ndarray, "n H L"]:
        return np.linalg.norm(self.values, axis=-1)

    @property
    def update_norms(self) -> Float[np.ndarray, "n H L"]:
        return np.linalg.norm(self.updates, axis=-1)


def shown_images(statistics: Statistics, heads: Heads) -> list[int]:
    """The first images that have outliers where the heads were chosen by them, then the first of the others."""
    has = statistics.has_outliers[:, heads.layer - 1] if heads.dim >= 0 else np.zeros(statistics.images, bool)
    order = [*np.flatnonzero(has)[:SAMPLES], *np.flatnonzero(~has)]
    return sorted(int(index) for index in order[:SAMPLES])


def sample_of(spec: RunSpec, params: Any, heads: Heads, indices: list[int], pixels: UInt8[np.ndarray, "n Y X 3"]) -> Sample:
    """One image at a time: its weights may be large."""
    numbers, model = jax.tree.map(np.float32, knobs_of(spec).attention), static_of(spec.model)
    shown = np.array(heads.numbers)
    found = [jax.device_get(_at_heads(model, heads.layer, params, numbers, shown, one[None])) for one in pixels]
    return Sample(spec.model, heads, indices, pixels, *(np.stack(parts) for parts in zip(*found, strict=True)))


@partial(jax.jit, static_argnums=(0, 1))
def _at_heads(
    model: ModelSpec, layer: int, params: Any, numbers: Any, heads: Int[Array, " H"], images: Array
) -> tuple[Int[Array, " L"], Float[Array, "H L L"], Float[Array, "H L d"], Float[Array, "H L d"]]:
    points = at_points(model, params, numbers, images)
    attention = points[f"encoderblock_{layer}"][ATTENTION]
    weights, values, updates = attention["weights"][0], attention["v"][0], update_of(attention, model.heads)[0]
    if layer:
        counts = outliers(points[f"encoderblock_{layer - 1}"]["sum_1"])[0].sum(axis=-1)
    else:
        counts = jnp.full(weights.shape[-1], -1)
    return counts, weights[heads], *(x[:, heads].swapaxes(0, 1).astype(np.float32) for x in (values, updates))
