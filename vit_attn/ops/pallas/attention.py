"""Attention in one kernel each for forward and backward, on the projections' own layout.

Queries, keys and values are read as [batch, tokens, heads * d], which is what the projections write, 128 lanes of a group of
heads at a time. qk-layernorm, logits, h and their gradients never leave the chip's vector memory.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from vit_attn.ops.form import Form
from vit_attn.ops.norm import QKNorm, normalized
from vit_attn.ops.pallas import tiles as tiling
from vit_attn.ops.pallas import weights
from vit_attn.ops.pallas.backward import GAMMA, SCALE, SUMS, ZETA, backward
from vit_attn.ops.pallas.forward import forward
from vit_attn.ops.pallas.geometry import LANES, Geometry

VMEM_BYTES = 60 * 2**20  # that a kernel may use: v5p and v7x have 64 MiB, v5e and v6e 128
MOST_KEY_BYTES = 9408 * 4 * LANES  # of the keys of one head group: they lie whole in that memory; compiled for v5e


def supported(heads: int, width: int, keys: int = 1, itemsize: int = 2) -> str:
    """ "" or the reason why these heads, or so many keys of `itemsize` bytes a number, cannot be had."""
    if width % LANES and LANES % width:
        return f"a head width of {width} neither divides {LANES} nor is a multiple of it"
    if heads * width % LANES:
        return f"{heads} heads of width {width} are {heads * width} wide, which is no multiple of {LANES}"
    if keys * itemsize * max(LANES, width) > MOST_KEY_BYTES:
        most = MOST_KEY_BYTES // (itemsize * max(LANES, width))
        return f"{keys} keys of {itemsize} bytes a number do not fit the memory of a TPU core (at most {most})"
    return ""


def fused(
    form: Form,
    q: Float[Array, "B q H d"],
    k: Float[Array, "B k H d"],
    v: Float[Array, "B k H d"],
    scale: Float[Array, "H"],
    stretch: tuple[Any, Any],
    norm: QKNorm,
    tiles: tiling.Tiles | None = None,
) -> Float[Array, "B q H d"]:
    """scale_h sum_j w_ij v_j, of v's type. w: of ops.nonlinearity with (gamma, zeta) = stretch, without L^-alpha.

    Queries and keys go through the LayerNorm of `norm` if form.qk_norm asks for it. Logits, h and sums are float32, the
    operands of matrix products are of v's type. Gradients with respect to all arrays, `stretch` and `norm` included.
    """
    batch, queries, heads, width = q.shape
    if reason := "the kernels know no causal mask" if form.causal else supported(heads, width, k.shape[1], v.dtype.itemsize):
        raise ValueError(f"no fused attention: {reason}")
    if v.dtype == jnp.float16:  # a weight may exceed 65504, and TPUs have none
        q, k, wide = (x.astype(jnp.float32) for x in (q, k, v))
        return fused(form, q, k, wide, scale, stretch, norm, tiles).astype(v.dtype)
    if form.qk_norm == "width":
        q, k = normalized(q, k, "width", norm)
    geometry = Geometry(
        h=form.h,
        length=form.keys(k.shape[1]),
        normalize=form.qk_norm == "head",
        width=width,
        queries=queries,
        keys=k.shape[1],
        tiles=tiles or tiling.choose(batch, queries, k.shape[1]),
        dtype=v.dtype,
    )
    flat = [x.reshape(*x.shape[:2], heads * width) for x in (q, k, v)]
    numbers = jnp.stack([jnp.asarray(x, jnp.float32) for x in stretch])
    return _attention(geometry, *flat, scale, numbers, affine(geometry, norm)).reshape(q.shape)


def affine(geometry: Geometry, norm: QKNorm) -> Float[Array, "4 lanes"]:
    """Scale and bias of queries, then of keys, once a head of a block. 1/sqrt(d) and the logits' unit are in the queries'."""
    factor = geometry.width**-0.5 * weights.kind(geometry, (0.0, 1.0)).unit
    given = norm if geometry.normalize else QKNorm()
    rows = [jnp.full(geometry.width, 1.0 - i % 2) if x is None else x.astype(jnp.float32) for i, x in enumerate(given)]
    table = jnp.stack(rows) * jnp.array([[factor], [factor], [1.0], [1.0]])
    return jnp.tile(table, (1, geometry.heads))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    geometry: Geometry,
    q: Float[Array, "B q D"],
    k: Float[Array, "B k D"],
    v: Float[Array, "B k D"],
    scale: Float[Array, "H"],
    stretch: Float[Array, "2"],
    affine: Float[Array, "4 lanes"],
) -> Float[Array, "B q D"]:
    """`fused` on the layout of the kernels."""
    out = jax.ShapeDtypeStruct(q.shape, v.dtype)
    return call(geometry, forward, [scale, stretch, affine, q, k, v], [out], [])[0]


def _attention_forward(geometry: Geometry, *arrays: Array) -> tuple[Array, tuple[Array, ...]]:
    return _attention(geometry, *arrays), arrays


def _attention_backward(geometry: Geometry, arrays: tuple[Array, ...], d_out: Array) -> tuple[Array, ...]:
    scale, stretch, affine, q, k, v = *arrays[3:], *arrays[:3]
    groups = q.shape[2] // geometry.lanes
    programs = q.shape[0] // geometry.tiles.images
    out = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
    out.append(jax.ShapeDtypeStruct((programs, groups, SUMS, geometry.lanes), jnp.float32))
    scratch = [pltpu.VMEM((geometry.keys, geometry.lanes), jnp.float32)] * (2 if geometry.query_blocks > 1 else 0)
    *gradients, sums = call(geometry, backward, [scale, stretch, affine, q, k, v, d_out], out, scratch)
    sums = sums.sum(0)
    d_scale = sums[:, SCALE].reshape(*scale.shape, geometry.width).sum(-1)
    return *gradients, d_scale, sums[:, GAMMA : ZETA + 1].sum((0, 2)), sums[:, :4].sum(0)


_attention.defvjp(_attention_forward, _attention_backward)


def call(geometry: Geometry, kernel: Any, arrays: list[Array], out: list[Any], scratch: list[Any]) -> list[Array]:
    """The kernel over the grid (images, head groups, query blocks); interpreted where the program is not one for a TPU."""
    images, lanes = geometry.tiles.images, geometry.lanes
    q = arrays[3]
    specs = {
        "scalars": pl.BlockSpec(memory_space=pltpu.SMEM),
        "affine": pl.BlockSpec((4, lanes), lambda b, g, i: (0, 0)),
        "queries": pl.BlockSpec((images, geometry.tiles.queries, lanes), lambda b, g, i: (b, i, g)),
        "keys": pl.BlockSpec((images, geometry.keys, lanes), lambda b, g, i: (b, 0, g)),
        "sums": pl.BlockSpec((None, None, SUMS, lanes), lambda b, g, i: (b, g, 0, 0)),
    }
    taken = ["scalars", "scalars", "affine", "queries", "keys", "keys", "queries"][: len(arrays)]
    given = ["queries", "keys", "keys", "sums"][: len(out)]
    run = lambda interpret: pl.pallas_call(
        partial(kernel, geometry),
        grid=(q.shape[0] // images, q.shape[2] // lanes, geometry.query_blocks),
        in_specs=[specs[name] for name in taken],
        out_specs=[specs[name] for name in given],
        out_shape=out,
        scratch_shapes=scratch,
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
    )
    return list(jax.lax.platform_dependent(*arrays, tpu=run(False), default=run(True)))
