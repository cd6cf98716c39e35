"""Attention of int8 in one kernel: both products int8 x int8 -> int32, logits and weights never leave vector memory.

Keys lie along sublanes and queries along lanes: what a query has of its own (its maximum, its sum) is then one row, which
costs nothing beside the logits. Numbers are a = s_a (i_a - z_a); for what the zeros are owed see quant.integer.
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
DEGREE = {"identity": 1, "relu": 1, "relu2": 2}  # h(c z) = c^degree h(z) for c > 0: scales become one
ROUNDER = np.float32(1.5 * 2**23)  # see quant.integer
ROWS = 32  # of a tile of int8
TOGETHER = 8  # images at most whose heads go stage by stage
ROWS_OF_IMAGES = 2048  # that the images of one program have together


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
    bounded: bool,
) -> Int8[Array, "B q D"]:
    """The context of attention in int8. `scale`: of the weights, L^-alpha, a head. `bounded`: see `bounds`."""
    batch, rows, lanes = q.shape
    keys = k.shape[1]
    tiles = tiling.choose(batch, rows, keys, ROWS_OF_IMAGES)
    geometry = Geometry(h, keys, False, lanes // heads, rows, keys, tiles, jnp.int8)
    numbers = jnp.stack([jnp.asarray(x, jnp.float32).reshape(()) for x in scalars])
    block = lambda length: pl.BlockSpec((tiles.images, length, geometry.lanes), lambda b, g, i: (b, i * 0, g))
    queries = pl.BlockSpec((tiles.images, tiles.queries, geometry.lanes), lambda b, g, i: (b, i, g))
    run = lambda interpret: pl.pallas_call(
        partial(_kernel, geometry, bounded),
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


def bounds(width: float) -> bool:
    """Whether a grid of logits so wide is bound enough for exp, and rows need no maximum: within 80 of its middle.

    exp(80), and the sum of 1024 of them, is less than the largest float32, and exp(-80) is no subnormal number.
    """
    return width <= 2 * 80


def _kernel(geometry: Geometry, bounded: bool, scale: Any, numbers: Any, q: Any, k: Any, v: Any, out: Any) -> None:
    n = Scalars(*(numbers[index] for index in range(len(Scalars._fields))))
    first, in_all = pl.program_id(1) * geometry.heads, geometry.tiles.images
    together = next(number for number in range(min(TOGETHER, in_all), 0, -1) if in_all % number == 0)

    def some(turn: Any) -> None:
        """Several heads stage by stage: one's arithmetic fills the gaps of another's."""
        images = [turn * together + i for i in range(together)]
        heads = [(image, head) for image in images for head in range(geometry.heads)]
        values = [part for image in images for part in jnp.split(v[image].T, geometry.heads)]
        z = [_logits(geometry, *_operands(geometry, head, q[image], k[image], n), n) for image, head in heads]
        w = [_weights(geometry, bounded, x, n, scale[first + head]) for x, (_, head) in zip(z, heads, strict=True)]
        contexts = [_context(geometry, x, part, n) for x, part in zip(w, values, strict=True)]
        for i, image in enumerate(images):
            total = jnp.concatenate(contexts[i * geometry.heads : (i + 1) * geometry.heads]).astype(jnp.float32)
            x = _limited(total * n.context + (ROUNDER + n.context_zero), n.context_low, n.context_high)
            out[image] = _whole(x).T.astype(jnp.int8)

    pl.loop(0, in_all // together)(some)


def _operands(geometry: Geometry, head: int, q: Array, k: Array, n: Scalars) -> tuple[Array, Array]:
    """(queries, keys) of a head whose product is sum_d q_d k_d - z_q sum_d (k_d + 1).

    Beside the d lanes of k_d and q_d lie as many of ~k_d = -k_d - 1 and z_q: of several heads in the lanes of the next one.
    """
    if geometry.heads == 1:
        zeros = jnp.full(q.shape, n.q_zero.astype(jnp.int32)).astype(jnp.int8)
        return jnp.concatenate([q, zeros], 1), jnp.concatenate([k, ~k], 1)
    wide = lambda x: x.astype(jnp.int32)
    own, beside = geometry.own_lanes(head), geometry.own_lanes((head + 1) % geometry.heads)
    queries = jnp.where(own, wide(q), jnp.where(beside, wide(n.q_zero), 0))
    keys = jnp.where(own, wide(k), pltpu.roll(~wide(k), geometry.width, 1))
    return queries.astype(jnp.int8), keys.astype(jnp.int8)


def _logits(geometry: Geometry, q: Array, k: Array, n: Scalars) -> Array:
    """[k, q], rounded; ROUNDER more than their integers."""
    zero_q, zero_k = n.q_zero.astype(jnp.int32), n.k_zero.astype(jnp.int32)
    of_queries = _product(jnp.ones((ROWS, q.shape[1]), jnp.int8), q, 1, 1)[:1]  # and the zeros beside them
    owed = zero_k * (2 * geometry.width * zero_q - of_queries) + geometry.width * zero_q
    z = (_product(k, q, 1, 1) + owed).astype(jnp.float32)
    return _limited(z * n.logits + ROUNDER, n.logits_low, n.logits_high)


def _weights(geometry: Geometry, bounded: bool, z: Array, n: Scalars, scale: Any) -> Array:
    """In int8, [k, q], of the logits `z`."""
    if geometry.h in ROWWISE:
        row = ROWWISE[geometry.h]
        top = ROUNDER + jnp.round((n.logits_low + n.logits_high) * 0.5) if bounded else z.max(0, keepdims=True)
        top = jnp.maximum(top, ROUNDER) if row.zero_logit and not bounded else top
        unit = n.logits_scale * np.float32(1.0 / np.log(2.0))
        p = jnp.exp2((z - top) * unit)
        total = p.sum(0, keepdims=True) + (jnp.exp2((ROUNDER - top) * unit) if row.zero_logit else 0.0)
        w, factor = p, n.weights / total
        if row.clipped:
            w, factor = clip_stretched(p * (1.0 / total), n.gamma, n.zeta), n.weights
    elif geometry.h in DEGREE:
        w, factor = pointwise(geometry.h, geometry.length)(z - ROUNDER), n.weights * scale
        for _ in range(DEGREE[geometry.h]):
            factor *= n.logits_scale
    else:
        w, factor = pointwise(geometry.h, geometry.length)((z - ROUNDER) * n.logits_scale), n.weights * scale
    moved = jnp.minimum(w * factor + (ROUNDER + n.weights_zero), ROUNDER + n.weights_high)
    return _bits(moved if geometry.h in NEVER_NEGATIVE else jnp.maximum(moved, ROUNDER + n.weights_low))


def _context(geometry: Geometry, w: Array, values: Array, n: Scalars) -> Array:
    """sum_j (w_j - z_w) (v_j - z_v) of one head, [d, q], of values [d, k]."""
    zero_w, zero_v = n.weights_zero.astype(jnp.int32), n.v_zero.astype(jnp.int32)
    sums = _product(jnp.concatenate([values, jnp.ones((ROWS, geometry.keys), jnp.int8)]), w, 1, 0)
    sums, of_weights = sums[: geometry.width], sums[geometry.width :][:1]
    of_values = _product(~values, jnp.full(w.shape, zero_w).astype(jnp.int8), 1, 0)  # -z_w sum_j (v_j + 1)
    return sums + of_values + (geometry.keys * zero_w * (zero_v + 1) - zero_v * of_weights)


def _limited(x: Array, low: Any, high: Any) -> Array:
    return jnp.clip(x, ROUNDER + low, ROUNDER + high)


def _whole(x: Array) -> Array:
    """ROUNDER + integer as int32; the integer is in its last bits."""
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _bits(x: Array) -> Array:
    return _whole(x).astype(jnp.int8)


def _product(a: Array, b: Array, axis_a: int, axis_b: int) -> Array:
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.int32)
