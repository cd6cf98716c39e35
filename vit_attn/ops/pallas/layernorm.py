"""LayerNorm of every head of a block, and its gradient, inside a kernel."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.norm import EPSILON
from vit_attn.ops.pallas.geometry import Geometry


class Normalized(NamedTuple):
    """(x - mean) / sqrt(variance + epsilon), and 1 / sqrt(...) in the lanes of each head."""

    x: Float[Array, "rows lanes"]
    factor: Float[Array, "rows #lanes"]


def mean(geometry: Geometry, x: Float[Array, "rows lanes"]) -> Float[Array, "rows #lanes"]:
    """The mean over each head's lanes, in those lanes."""
    if geometry.heads == 1:
        return x.mean(-1, keepdims=True)
    sums = [geometry.own(i, x).sum(-1, keepdims=True) for i in range(geometry.heads)]
    return geometry.merged(sums) * (1.0 / geometry.width)


def normalize(geometry: Geometry, x: Float[Array, "rows lanes"]) -> Normalized:
    """As ops.norm computes it, before scale and bias."""
    center = mean(geometry, x)
    variance = jnp.maximum(0.0, mean(geometry, jnp.square(x)) - jnp.square(center))
    factor = jax.lax.rsqrt(variance + EPSILON)
    return Normalized((x - center) * factor, factor)


def gradient(geometry: Geometry, n: Normalized, d_x: Float[Array, "rows lanes"]) -> Float[Array, "rows lanes"]:
    """The gradient with respect to what was normalised, from the one with respect to n.x."""
    return n.factor * (d_x - mean(geometry, d_x) - n.x * mean(geometry, d_x * n.x))
