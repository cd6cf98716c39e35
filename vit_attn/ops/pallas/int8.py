"""Attention of int8 in one kernel: both products int8 x int8 -> int32, logits and weights never leave vector memory.

Numbers are a = s_a (i_a - z_a). What the zeros are owed (see quant.integer): sums over a row of keys come from a product with
ones, and sums over weights from the lanes of the block that are another head's, where v is 1 for that.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int8

from vit_attn.ops.nonlinearity import ROWWISE, clip_stretched, pointwise
from vit_attn.ops.pallas import tiles as tiling
from vit_attn.ops.pallas.attention import VMEM_BYTES, supported
from vit_attn.ops.pallas.geometry import Geometry

NEVER_NEGATIVE = (*ROWWISE, "relu", "relu2", "softplus", "relu6", "sigmoid", "sigmoid_bias")  # weights that need no lower limit
ROUNDER = np.float32(1.5 * 2**23)  # see quant.integer


class Scalars(NamedTuple):
    """Numbers of a kernel, float32 in scalar memory. Zeros, lows and highs are integers."""

    q_zero: Any
    k_zero: Any
    v_zero: Any
    logits: Any  # scale of an accumulator over that of the logits' grid
    logits_scale: Any
    logits_low: Any  # lowest - zero
    logits_high: Any
    weights: Any  # 1 / scale of the weights' grid
    weights_zero: Any
    weights_low: Any
    weights_high: Any
    context: Any  # scale of an accumulator over that of the context's grid
    context_zero: Any
    context_low: Any
    context_high: Any
    gamma: Any
    zeta: Any


def why_not_int8(heads: int, width: int, keys: int) -> str:
    """The reason why the kernel cannot take such an attention; empty if it can."""
    if keys > tiling.WHOLE_KEYS:
        return f"{keys} keys: it takes at most {tiling.WHOLE_KEYS}"
    return supported(heads, width, keys, 1)


def attention_int8(
    h: str,
    q: Int8[Array, "B q D"],
    k: Int8[Array, "B k D"],
    v: Int8[Array, "B k D"],
    scale: Float[Array, "H"],
    scalars: Scalars,
    heads: int,
) -> Int8[Array, "B q D"]:
    """The context of attention in int8. `scale`: of the weights, L^-alpha, a head."""
    batch, rows, lanes = q.shape
    keys = k.shape[1]
    tiles = tiling.choose(batch, rows, keys)
    geometry = Geometry(h, keys, False, lanes // heads, rows, keys, tiles, jnp.int8)
    numbers = jnp.stack([jnp.asarray(x, jnp.float32).reshape(()) for x in scalars])
    block = lambda length: pl.BlockSpec((tiles.images, length, geometry.lanes), lambda b, g, i: (b, i * 0, g))
    queries = pl.BlockSpec((tiles.images, tiles.queries, geometry.lanes), lambda b, g, i: (b, i, g))
    run = lambda interpret: pl.pallas_call(
        partial(_kernel, geometry),
        grid=(batch // tiles.images, lanes // geometry.lanes, geometry.query_blocks),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM)] * 2 + [queries, block(keys), block(keys)],
        out_specs=queries,
        out_shape=jax.ShapeDtypeStruct(q.shape, jnp.int8),
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
    )
    return jax.lax.platform_dependent(scale, numbers, q, k, v, tpu=run(False), default=run(True))


def _kernel(geometry: Geometry, scale: Any, numbers: Any, q: Any, k: Any, v: Any, out: Any) -> None:
    n = Scalars(*(numbers[index] for index in range(len(Scalars._fields))))
    whole = lambda x: x.astype(jnp.int32)
    first = pl.program_id(1) * geometry.heads

    def one(image: Any) -> None:
        queries, keys, values = whole(q[image]), k[image], whole(v[image])
        parts = []
        for head in range(geometry.heads):
            own = geometry.own_lanes(head)
            mine = jnp.where(own, queries, 0) if geometry.heads > 1 else queries
            sums = _product(mine.astype(jnp.int8), keys, 1, 1)
            ones = jnp.broadcast_to(jnp.where(own, 1, 0), (32, geometry.lanes)).astype(jnp.int8)
            of_keys = _product(ones, keys, 1, 1)[:1]
            of_queries = mine.astype(jnp.float32).sum(-1, keepdims=True)  # exact, and faster than of integers
            owed = whole(n.q_zero) * (geometry.width * whole(n.k_zero) - of_keys)
            z = (sums + owed).astype(jnp.float32) - n.k_zero * of_queries
            z = _limited(z * n.logits + ROUNDER, n.logits_low, n.logits_high)
            w = _weights(geometry, z, n, scale[first + head])
            parts.append(_context(geometry, own, w, values, n))
        total = geometry.merged(parts).astype(jnp.float32)
        out[image] = _bits(_limited(total * n.context + (ROUNDER + n.context_zero), n.context_low, n.context_high))

    geometry.over_images(one)


def _weights(geometry: Geometry, z: Array, n: Scalars, scale: Any) -> Array:
    """In int8, of logits that are rounded: `z` is ROUNDER more than their integers."""
    if geometry.h in ROWWISE:
        row = ROWWISE[geometry.h]
        top = z.max(-1, keepdims=True)
        top = jnp.maximum(top, ROUNDER) if row.zero_logit else top
        unit = n.logits_scale * np.float32(1.0 / np.log(2.0))
        p = jnp.exp2((z - top) * unit)
        total = p.sum(-1, keepdims=True) + (jnp.exp2((ROUNDER - top) * unit) if row.zero_logit else 0.0)
        w, factor = p, n.weights * pl.reciprocal(total)
        if row.clipped:
            w, factor = clip_stretched(p / total, n.gamma, n.zeta), n.weights
    else:
        w, factor = pointwise(geometry.h, geometry.length)((z - ROUNDER) * n.logits_scale), n.weights * scale
    moved = jnp.minimum(w * factor + (ROUNDER + n.weights_zero), ROUNDER + n.weights_high)
    return _bits(moved if geometry.h in NEVER_NEGATIVE else jnp.maximum(moved, ROUNDER + n.weights_low))


def _context(geometry: Geometry, own: Array, w: Array, values: Array, n: Scalars) -> Array:
    """sum_j (w_j - z_w) (v_j - z_v), in its own lanes."""
    zero_w, zero_v = n.weights_zero.astype(jnp.int32), n.v_zero.astype(jnp.int32)
    of_values = values.sum(0, keepdims=True)
    if geometry.heads > 1:
        sums = _product(w, jnp.where(own, values, 1).astype(jnp.int8), 1, 0)
        of_weights = pltpu.roll(sums, geometry.width, 1)  # from the next head's lanes
    else:
        sums = _product(w, values.astype(jnp.int8), 1, 0)
        of_weights = w.astype(jnp.int32).sum(-1, keepdims=True)
    return sums + (zero_w * (geometry.keys * zero_v - of_values) - zero_v * of_weights)


def _limited(x: Array, low: Any, high: Any) -> Array:
    return jnp.clip(x, ROUNDER + low, ROUNDER + high)


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32).astype(jnp.int8)


def _product(a: Array, b: Array, axis_a: int, axis_b: int) -> Array:
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.int32)
