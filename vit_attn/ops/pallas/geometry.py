"""What a kernel knows of its attention before it is compiled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float

from vit_attn.ops.pallas.tiles import LANES, SUBLANES, Tiles


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

    def masks(self) -> list[Bool[Array, "1 lanes"]]:
        """Of each head of the block: which lanes are its own."""
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, self.lanes), 1)
        return [lane // self.width == i for i in range(self.heads)]

    def own(self, i: int, x: Float[Array, "rows lanes"]) -> Float[Array, "rows lanes"]:
        """`x` where lanes are head i's, 0 elsewhere: a product over all lanes is then one over that head's."""
        return x if self.heads == 1 else jnp.where(self.masks()[i], x, 0.0)

    def merged(self, parts: list[Array]) -> Array:
        """[rows, lanes] that has in each head's lanes what its part has there; parts may be [rows, 1] or scalars."""
        out = jnp.broadcast_to(parts[0], (*jnp.shape(parts[0])[:-1], self.lanes))
        for mask, part in list(zip(self.masks(), parts, strict=True))[1:]:
            out = jnp.where(mask, part, out)
        return out

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

    def query_rows(self, x: Float[Array, "rows lanes"]) -> Float[Array, "rows lanes"]:
        """`x` with zeros in the rows of the last query block that lie behind the last query."""
        if self.queries % self.tiles.queries == 0:
            return x
        row = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0) + pl.program_id(2) * self.tiles.queries
        return jnp.where(row < self.queries, x, 0.0)


def product(a: Array, b: Array, axis_a: int, axis_b: int) -> Float[Array, "m n"]:
    """Matrix product over the given axes, accumulated in float32."""
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)
