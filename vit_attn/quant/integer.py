"""Products of integers: what waits at the products of a network that runs in INT8 (see models.points.product_at).

Numbers are a = s_a (i_a - z_a), with i_a and z_a in -128 ... 127. So

    sum_k a b = s_a s_b [ sum_k i_a i_b  -  z_b sum_k i_a  -  z_a sum_k i_b  +  K z_a z_b ]

and all within the brackets are integers: the accumulators of simulated quantization, exactly, whatever the order of the sum.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

from vit_attn.quant.grid import Grid

Product = Callable[..., Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Integers:
    """A grid of at most 8 bits as int8 has it: 0 ... 255 is stored as -128 ... 127, zero with it."""

    inverse: Float[Array, "..."]  # 1 / scale: no unit divides as fast as it multiplies
    scale: Float[Array, "..."]
    zero: Float[Array, "..."]
    lowest: Float[Array, ""]
    highest: Float[Array, ""]

    def __call__(self, x: Float[Array, "..."]) -> Int8[Array, "..."]:
        """Grid.integers(x), moved, but where x / scale is a half within the rounding of float32."""
        shifted = jnp.round(x.astype(jnp.float32) * self.inverse) + self.zero
        return jnp.clip(shifted, self.lowest, self.highest).astype(jnp.int8)

    def numbers(self, integers: Int8[Array, "..."]) -> Float[Array, "..."]:
        return (integers.astype(jnp.float32) - self.zero) * self.scale

    def times(self, factor: Any) -> "Integers":
        """The same integers for numbers that are multiplied by `factor`."""
        return replace(self, scale=self.scale * factor, inverse=self.inverse / factor)

    @property
    def whole_zero(self) -> Int[Array, "..."]:
        return self.zero.astype(jnp.int32)


def integers_of(grid: Grid) -> Integers:
    """As signed numbers: the middle of its integers becomes 0."""
    middle = (grid.lowest + grid.highest + 1.0) / 2.0
    return Integers(1.0 / grid.scale, grid.scale, grid.zero - middle, grid.lowest - middle, grid.highest - middle)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KernelProduct:
    """x times a kernel of int8 whose zero is 0; outputs are the last axis.

    The inputs' zero is owed to each output alike for all x: -z_x sum_k kernel, an int32 that is added as a bias.
    """

    inputs: Integers
    correction: Int[Array, "outputs"]
    scale: Float[Array, "outputs"]  # of inputs times that of the kernel: one, or one an output

    def __call__(self, product: Product, x: Array, kernel: Array, *words: Any, **named: Any) -> Float[Array, "..."]:
        named |= {"preferred_element_type": jnp.int32}
        sums = product(self.inputs(x), kernel.astype(jnp.int8), *words, **named)
        outputs = (1,) * (sums.ndim - 1) + (-1,)
        return (sums + self.correction.reshape(outputs)).astype(jnp.float32) * self.scale.reshape(outputs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AttentionProduct:
    """One of attention's two products: both operands come from the image, and so do the sums that their zeros meet.

    logits   q [B q H d], k [B k H d] -> [B H q k]: a number a query and a number a key
    context  weights [B H q k], v [B k H d] -> [B q H d]: a number a query and a vector a head
    """

    which: str = field(metadata={"static": True})
    left: Integers
    right: Integers
    scale: Float[Array, "..."]  # of both; broadcasts against the result

    def __call__(self, product: Product, a: Array, b: Array) -> Float[Array, "..."]:
        left, right = self.left(a), self.right(b)
        of_left, of_right = left.sum(-1, dtype=jnp.int32), right.sum(-1 if self.which == "logits" else 1, dtype=jnp.int32)
        of_left = of_left.transpose(0, 2, 1)[..., None]
        of_right = of_right.transpose(0, 2, 1)[:, :, None] if self.which == "logits" else of_right[:, None]
        zero_left, zero_right = self.left.whole_zero, self.right.whole_zero
        owed = zero_left * (a.shape[-1] * zero_right - of_right)  # the shorter of the two to add up with
        sums = product(left, right, preferred_element_type=jnp.int32) + (owed - zero_right * of_left)
        return sums.astype(jnp.float32) * self.scale


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stored:
    """x to its grid, and in memory as int8: for numbers that several will read."""

    grid: Integers

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Stored"]:
        return self.grid.numbers(jax.lax.optimization_barrier(self.grid(x))).astype(x.dtype), self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Passing:
    """x to its grid, on its way."""

    grid: Integers

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Passing"]:
        g = self.grid
        rounded = jnp.clip(jnp.round(x.astype(jnp.float32) * g.inverse), g.lowest - g.zero, g.highest - g.zero)
        return (rounded * g.scale).astype(x.dtype), self
