"""The forward kernel."""

from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from vit_attn.ops.pallas import weights
from vit_attn.ops.pallas.blocks import KeyBlocks
from vit_attn.ops.pallas.geometry import Geometry, product
from vit_attn.ops.pallas.layernorm import QUERY, normalized, scaled


def forward(geometry: Geometry, scale: Any, stretch: Any, affine: Any, q: Any, k: Any, v: Any, out: Any) -> None:
    """Writes `out` for one query block of a group of heads of some images. Arguments but the first are references.

    scale [heads of the attention] and stretch (gamma, zeta): in scalar memory. affine [4, lanes]: see layernorm.scaled.
    q, out [images, query rows, lanes]; k, v [images, keys, lanes].
    """
    kind = weights.kind(geometry, (stretch[0], stretch[1]))
    scales = geometry.merged(head_scales(geometry, scale))

    def one(image: Any) -> None:
        queries = own_queries(geometry, scaled(geometry, normalized(geometry, q[image]), affine, QUERY))
        blocks = KeyBlocks(geometry, affine, k, v, image)
        rows = scanned(geometry, kind, queries, blocks)

        def add(totals: list[Array], part: Any) -> list[Array]:
            block = blocks.at(part)
            w = [kind.weight(row, product(x, block.keys, 1, 1)) for row, x in zip(rows, queries, strict=True)]
            return [t + product(x.astype(geometry.dtype), block.values, 1, 0) for t, x in zip(totals, w, strict=True)]

        totals = geometry.over_keys(add, [jnp.zeros(q.shape[1:], jnp.float32)] * geometry.heads)
        total = geometry.merged([kind.finish(row, t) for row, t in zip(rows, totals, strict=True)])
        out[image] = (total * scales).astype(out.dtype)

    geometry.over_images(one)


def own_queries(geometry: Geometry, x: Float[Array, "rows lanes"]) -> list[Float[Array, "rows lanes"]]:
    """One operand a head."""
    return [geometry.own(i, x) for i in range(geometry.heads)]


def scanned(geometry: Geometry, kind: Any, queries: list[Array], blocks: KeyBlocks) -> list[Any]:
    """What `kind` wants to know of the rows of each head beforehand."""
    if not kind.scans:
        return [None] * geometry.heads

    def scan(rows: list[Any], part: Any) -> list[Any]:
        keys = blocks.at(part).keys
        return [kind.scan(row, product(x, keys, 1, 1)) for row, x in zip(rows, queries, strict=True)]

    return geometry.over_keys(scan, [kind.first(queries[0].shape[0])] * geometry.heads)


def head_scales(geometry: Geometry, scale: Any) -> list[Float[Array, "1 1"]]:
    """scale[h] of each head of this program's group."""
    first = pl.program_id(1) * geometry.heads
    return [jnp.full((1, 1), scale[first + i]) for i in range(geometry.heads)]
