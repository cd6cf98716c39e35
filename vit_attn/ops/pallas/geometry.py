"""What a kernel knows of its attention before it is compiled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Num

from vit_attn.ops.pallas.tiles import SUBLANES, Tiles

LANES = 128  # of a vector register
MOST_UNROLLED = 8  # images that are written out one after the other, so that one's arithmetic fills another's gaps


@dataclass(frozen=True)
class Geometry:
    """Static sizes. A program has the heads that share the lanes of one block: two of width 64, one of width 128 or more."""

    h: str
    length: int  # L of the nonlinearity: the keys there are in all
    normalize: bool  # each head of queries and keys goes through its LayerNorm
    width: int  # d, of a head
    queries: int
    keys: int
    tiles: Tiles
    dtype: Any  # of the operands of matrix products

    @property
    def lanes(self) -> int:
        """Width of a block."""
        return max(LANES, self.width)

    @property
    def heads(self) -> int:
        """Heads of a block."""
        return self.lanes // self.width

    @property
    def query_blocks(self) -> int:
        return -(-self.queries // self.tiles.queries)

    def own_lanes(self, i: int, axis: int = 1, shape: tuple[int, int] | None = None) -> Bool[Array, "_ _"]:
        """Which positions along `axis` are head i's."""
        at = jax.lax.broadcasted_iota(jnp.int32, shape or (1, self.lanes), axis)
        return (at >= i * self.width) & (at < (i + 1) * self.width)

    def own(self, i: int, x: Float[Array, "rows lanes"]) -> Float[Array, "rows lanes"]:
        """`x` where lanes are head i's, 0 elsewhere: a product over all lanes is then one over that head's."""
        return x if self.heads == 1 else jnp.where(self.own_lanes(i), x, 0.0)

    def merged(self, parts: list[Num[Array, "_ _"]]) -> Num[Array, "_ lanes"]:
        """In each head's lanes what its part has there; parts may have one lane."""
        out = jnp.broadcast_to(parts[0], (parts[0].shape[0], self.lanes))
        for i, part in enumerate(parts[1:], 1):
            out = jnp.where(self.own_lanes(i), part, out)
        return out

    def over_images(self, body: Callable[[Any], None]) -> None:
        """body(image) for each image of a program."""
        images = self.tiles.images
        unroll = images if images <= MOST_UNROLLED else math.gcd(images, MOST_UNROLLED)
        pl.loop(0, images, unroll=unroll)(body)

    def over_keys(self, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """carry = body(carry, rows) for the rows of each key block; the last block may be shorter."""
        size = self.tiles.keys
        full, rest = divmod(self.keys, size)
        if full == 1:
            carry = body(carry, pl.ds(0, size))
        elif full:
            start = lambda j: pl.multiple_of(j * size, SUBLANES)
            carry = jax.lax.fori_loop(0, full, lambda j, c: body(c, pl.ds(start(j), size)), carry)
        return body(carry, pl.ds(full * size, rest)) if rest else carry

    def query_rows(self, block: Any, x: Float[Array, "rows lanes"]) -> Float[Array, "rows lanes"]:
        """`x`, of the query block of that number, with zeros in the rows that lie behind the last query."""
        if self.queries % self.tiles.queries == 0:
            return x
        row = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0) + block * self.tiles.queries
        return jnp.where(row < self.queries, x, 0.0)


def product(
    a: Float[Array, "_ _"], b: Float[Array, "_ _"], axis_a: int, axis_b: int, precision: Any = None
) -> Float[Array, "_ _"]:
    """Matrix product over the given axes, accumulated in float32."""
    axes = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, precision=precision, preferred_element_type=jnp.float32)
