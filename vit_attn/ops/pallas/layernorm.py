"""LayerNorm of every head of a block, and its gradient, inside a kernel."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.norm import EPSILON
from vit_attn.ops.pallas.geometry import Geometry, product

QUERY, KEY = 0, 2  # rows of `affine`: a scale and below it a bias


class Normalized(NamedTuple):
    """x: (raw - mean) * factor with factor = 1 / sqrt(variance + epsilon); raw and None where nothing is normalised."""

    x: Float[Array, "rows lanes"]
    factor: Float[Array, "rows #lanes"] | None  # noqa: F821


def normalized(geometry: Geometry, raw: Float[Array, "rows lanes"]) -> Normalized:
    """As ops.norm computes it, before scale and bias."""
    x = raw.astype(jnp.float32)
    if not geometry.normalize:
        return Normalized(x, None)
    center = x - mean(geometry, x)
    factor = jax.lax.rsqrt(float32_mean(geometry, jnp.square(center)) + EPSILON)
    return Normalized(center * factor, factor)


def scaled(geometry: Geometry, n: Normalized, affine: Any, row: int) -> Float[Array, "rows lanes"]:
    """n.x * scale + bias, of the matrix products' type. The queries' scale and bias hold 1/sqrt(d) and the logits' unit too."""
    x = n.x
    if geometry.normalize:
        x = x * affine[row : row + 1] + affine[row + 1 : row + 2]
    elif row == QUERY:
        x = x * affine[row : row + 1]
    return x.astype(geometry.dtype)


def gradient(
    geometry: Geometry, n: Normalized, affine: Any, row: int, d_y: Float[Array, "rows lanes"], sums: Any
) -> Float[Array, "rows lanes"]:
    """The gradient with respect to `raw` from that with respect to what `scaled` gave; adds those of affine to `sums`."""
    if not geometry.normalize:
        return d_y * affine[row : row + 1] if row == QUERY else d_y
    sums[row : row + 1] += (d_y * n.x).sum(0, keepdims=True)
    sums[row + 1 : row + 2] += d_y.sum(0, keepdims=True)
    d_x = d_y * affine[row : row + 1]
    return n.factor * (d_x - mean(geometry, d_x) - n.x * float32_mean(geometry, d_x * n.x))


def mean(geometry: Geometry, x: Float[Array, "rows lanes"]) -> Float[Array, "rows lanes"]:
    """The mean over each head's lanes, in those lanes, of `x` rounded to the type of the matrix products.

    A matrix product: the unit that sums over lanes has too little time for all the sums there are.
    """
    square = (geometry.lanes, geometry.lanes)
    same = [geometry.own_lanes(i, 0, square) & geometry.own_lanes(i, 1, square) for i in range(geometry.heads)]
    ones = functools.reduce(jnp.logical_or, same).astype(geometry.dtype)
    exact = jax.lax.Precision.HIGHEST if geometry.dtype == jnp.float32 else None
    return product(x.astype(geometry.dtype), ones, 1, 0, exact) * (1.0 / geometry.width)


def float32_mean(geometry: Geometry, x: Float[Array, "rows lanes"]) -> Float[Array, "rows #lanes"]:  # noqa: F821
    """The mean over each head's lanes, in those lanes."""
    sums = [geometry.own(i, x).sum(-1, keepdims=True) for i in range(geometry.heads)]
    return geometry.merged(sums) * (1.0 / geometry.width)
