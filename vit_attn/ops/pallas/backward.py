"""The backward kernel: makes the logits again and gives the gradients of queries, keys and values in one go."""

from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from vit_attn.ops.pallas import weights
from vit_attn.ops.pallas.blocks import KeyBlock, KeyBlocks
from vit_attn.ops.pallas.forward import head_scales, own_queries, scanned
from vit_attn.ops.pallas.geometry import Geometry, product
from vit_attn.ops.pallas.layernorm import KEY, QUERY, gradient, normalized, scaled

SUMS = 8  # rows of the partial sums: affine's four, then these
SCALE, GAMMA, ZETA = 4, 5, 6


def backward(
    geometry: Geometry, scale: Any, stretch: Any, affine: Any, q: Any, k: Any, v: Any, d_out: Any,
    d_q: Any, d_k: Any, d_v: Any, sums: Any, *totals: Any,
) -> None:  # fmt: skip
    """Writes the gradients for one query block of a group of heads of some images. Arguments but the first are references.

    As `forward`; d_* are shaped as their arrays. sums [SUMS, lanes]: this program's part of the gradients of affine, scale,
    gamma and zeta; those of the last three are to be summed over each head's lanes. totals: with several query blocks,
    float32 [keys, lanes] for d_k and d_v, which all of them add to.

    `scale` multiplies the finished gradients of q, k and v, which are short, and not the weights.
    """
    kind = weights.kind(geometry, (stretch[0], stretch[1]))
    scales = geometry.merged(head_scales(geometry, scale))
    query_block = pl.program_id(2)

    @pl.when(query_block == 0)
    def _() -> None:
        sums[...] = jnp.zeros_like(sums)
        for total in totals:
            total[...] = jnp.zeros_like(total)

    def write_keys(image: Any, part: Any, block: KeyBlock, of_key: Array, of_value: Array) -> None:
        """`block`'s gradients, from those with respect to its keys and values but for `scale`."""
        d_v[image, part] = (of_value * scales).astype(d_v.dtype)
        d_k[image, part] = gradient(geometry, block.normal, affine, KEY, of_key * (scales / kind.unit), sums).astype(d_k.dtype)
        sums[SCALE : SCALE + 1] += (of_value * block.values.astype(jnp.float32)).sum(0, keepdims=True)

    def one(image: Any) -> None:
        normal = normalized(geometry, geometry.query_rows(query_block, q[image]))
        query = scaled(geometry, normal, affine, QUERY)
        queries, blocks = own_queries(geometry, query), KeyBlocks(geometry, affine, k, v, image)
        rows = scanned(geometry, kind, queries, blocks)
        out_gradient = geometry.query_rows(query_block, d_out[image]).astype(jnp.float32)
        cotangents = [kind.cotangents(row, out_gradient) for row in rows]
        to_values = [x.astype(geometry.dtype) for x, _ in cotangents]
        to_weights = [geometry.own(i, x).astype(geometry.dtype) for i, (_, x) in enumerate(cotangents)]
        again = rescanned(geometry, kind, rows, queries, to_weights, blocks)

        def add(total: Array, part: Any) -> Array:
            block, parts = blocks.at(part), []
            for row, more, x, to_value, to_weight in zip(rows, again, queries, to_values, to_weights, strict=True):
                s, g = product(x, block.keys, 1, 1), product(to_weight, block.values, 1, 1)
                w, d_s = (y.astype(geometry.dtype) for y in kind.pull(row, more, s, g))
                parts.append((product(d_s, block.keys, 1, 0), product(d_s, query, 0, 0), product(w, to_value, 0, 0)))
            of_query, of_key, of_value = (geometry.merged(list(x)) for x in zip(*parts, strict=True))
            if totals:
                totals[0][part] += of_key
                totals[1][part] += of_value
            else:
                write_keys(image, part, block, of_key, of_value)
            return total + of_query

        of_query = geometry.over_keys(add, jnp.zeros(q.shape[1:], jnp.float32)) * (scales / kind.unit)
        d_q[image] = gradient(geometry, normal, affine, QUERY, of_query, sums).astype(d_q.dtype)
        if kind.stretches:
            add_stretch(geometry, kind, rows, again, scales, sums)
        if totals:

            @pl.when(query_block == geometry.query_blocks - 1)
            def _() -> None:
                last = KeyBlocks(geometry, affine, k, v, image)
                write = lambda _, part: write_keys(image, part, last.at(part), totals[0][part], totals[1][part])
                geometry.over_keys(write, None)

    geometry.over_images(one)


def rescanned(
    geometry: Geometry, kind: Any, rows: list[Any], queries: list[Array], to_weights: list[Array], blocks: KeyBlocks
) -> list[Any]:
    """What `kind` wants to know of the rows of each head before it pulls gradients back."""
    if not kind.scans:
        return [None] * geometry.heads

    def scan(again: list[Any], part: Any) -> list[Any]:
        block = blocks.at(part)
        return [
            kind.rescan(row, more, product(x, block.keys, 1, 1), product(to_weight, block.values, 1, 1))
            for row, more, x, to_weight in zip(rows, again, queries, to_weights, strict=True)
        ]

    nothing = jnp.zeros((queries[0].shape[0], 1), jnp.float32)
    return geometry.over_keys(scan, [weights.Again(nothing, nothing)] * geometry.heads)


def add_stretch(
    geometry: Geometry, kind: Any, rows: list[Any], again: list[Any], scales: Float[Array, "1 lanes"], sums: Any
) -> None:
    """Adds the gradients of gamma and zeta, in the first of each head's lanes."""
    for i, (row, more) in enumerate(zip(rows, again, strict=True)):
        at = slice(i * geometry.width, i * geometry.width + 1)
        for line, x in zip((GAMMA, ZETA), kind.stretch_gradients(row, more), strict=True):
            sums[line : line + 1, at] += x.sum(0, keepdims=True) * scales[:, at]
