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
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers, length_scale
from vit_attn.ops.norm import normalized
from vit_attn.ops.pallas.int8 import Scalars, attention_int8
from vit_attn.quant.grid import Grid

Product = Callable[..., Array]
# 1.5 * 2^23: of its sum with a number below 2^22 the unit in the last place is 1, so that adding it rounds, and the last bits
# are the rounded number's. A TPU takes a third of the time of rounding, limiting and converting.
ROUNDER = np.float32(1.5 * 2**23)


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
        moved = x.astype(jnp.float32) * self.inverse + (ROUNDER + self.zero)
        return _int8(jnp.clip(moved, ROUNDER + self.lowest, ROUNDER + self.highest))

    def codes(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The same integers as float32."""
        moved = x.astype(jnp.float32) * self.inverse + (ROUNDER + self.zero)
        return jnp.clip(moved, ROUNDER + self.lowest, ROUNDER + self.highest) - ROUNDER

    def rounded(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The numbers of the grid."""
        low, high = ROUNDER + (self.lowest - self.zero), ROUNDER + (self.highest - self.zero)
        return (jnp.clip(x.astype(jnp.float32) * self.inverse + ROUNDER, low, high) - ROUNDER) * self.scale

    def numbers(self, integers: Int8[Array, "..."]) -> Float[Array, "..."]:
        return (integers.astype(jnp.float32) - self.zero) * self.scale

    def times(self, factor: Any) -> "Integers":
        """The same integers for numbers that are multiplied by `factor`."""
        return replace(self, scale=self.scale * factor, inverse=self.inverse / factor)

    @property
    def whole_zero(self) -> Int[Array, "..."]:
        return self.zero.astype(jnp.int32)


def _int8(moved: Float[Array, "..."]) -> Int8[Array, "..."]:
    """The last 8 bits of ROUNDER + integer."""
    return jax.lax.bitcast_convert_type(moved, jnp.int32).astype(jnp.int8)


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
    correction: Int[Array, "N"]
    takes: str = field(metadata={"static": True})  # of x: its numbers | its codes (see Integers) | its int8, as float32
    scale: Float[Array, "N"]  # of inputs times that of the kernel: one, or one an output

    def __call__(self, product: Product, x: Array, kernel: Array, *words: Any, **named: Any) -> Float[Array, "..."]:
        named |= {"preferred_element_type": jnp.int32}
        integers = (
            x.astype(jnp.int8) if self.takes == "int8" else _int8(x + ROUNDER) if self.takes == "codes" else self.inputs(x)
        )
        sums = product(integers, kernel.astype(jnp.int8), *words, **named)
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
class FusedAttention:
    """All of attention behind q, k and v in one kernel: waits at `attend`, and computes what the operations within would."""

    q: Integers  # behind their LayerNorms
    k: Integers
    v: Integers
    logits: Integers
    weights: Integers
    context: Integers
    bounded: bool = field(metadata={"static": True})  # see ops.pallas.int8.bounds
    gives: str = field(metadata={"static": True})  # of the context: its numbers | its int8, as v's type

    def __call__(
        self, attend: Product, q: Array, k: Array, v: Array, form: Form, numbers: Numbers, **named: Any
    ) -> Float[Array, "B q H d"]:
        """A mask, which comes with tokens that are padding, is the other implementation's."""
        if named["mask"] is not None:
            out = attend(q, k, v, form, numbers, **named)
            return self.context.codes(out).astype(v.dtype) if self.gives == "int8" else out
        batch, _, heads, width = q.shape
        q, k = normalized(q, k, form.qk_norm, named["norm"])
        q, k, v_flat = (grid(x).reshape(batch, -1, heads * width) for grid, x in ((self.q, q), (self.k, k), (self.v, v)))
        length = form.keys(k.shape[1])
        scale = jnp.broadcast_to(length_scale(form.h, length, numbers.alpha), heads)
        scalars = self._scalars(width, numbers.stretch(length))
        context = attention_int8(form.h, q, k, v_flat, scale, scalars, heads, self.bounded)
        out = context if self.gives == "int8" else self.context.numbers(context)
        return out.reshape(batch, -1, heads, width).astype(v.dtype)

    def _scalars(self, width: int, stretch: tuple[Any, Any]) -> Scalars:
        z, w, c = self.logits, self.weights, self.context
        return Scalars(
            q_zero=self.q.zero,
            k_zero=self.k.zero,
            v_zero=self.v.zero,
            logits=self.q.scale * self.k.scale * width**-0.5 * z.inverse,
            logits_scale=z.scale,
            logits_low=z.lowest - z.zero,
            logits_high=z.highest - z.zero,
            weights=w.inverse,
            weights_zero=w.zero,
            weights_low=w.lowest,
            weights_high=w.highest,
            context=w.scale * self.v.scale * c.inverse,
            context_zero=c.zero,
            context_low=c.lowest,
            context_high=c.highest,
            gamma=stretch[0],
            zeta=stretch[1],
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stored:
    """x to its grid by way of int8, which is what the compiler then keeps: for numbers that several will read."""

    grid: Integers

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Stored"]:
        return self.grid.numbers(self.grid(x)).astype(x.dtype), self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Coded:
    """x becomes its integers, for several products that then read the same int8: the compiler does not see that their grids,
    which are arguments, are equal."""

    grid: Integers

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Coded"]:
        return self.grid.codes(x), self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Passing:
    """x to its grid, on its way."""

    grid: Integers

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Passing"]:
        return self.grid.rounded(x).astype(x.dtype), self
