"""Grids of integers, and numbers rounded to them: simulated quantization (Jacob et al., arXiv:1712.05877).

Why not Qwix (0.1.8, Google's library for JAX; read, not run): it quantizes the operands of dot_general, einsum and conv that it
intercepts, so that residual sums, outputs of LayerNorms and logits as such are no points of it; its integers are int2 to int8,
not 16 bits; and its static ranges are means of absmax, min-max or rms over batches (or fixed), without a running average,
percentiles or a least error.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SMALLEST_SCALE = 1e-8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Grid:
    """The numbers scale * (q - zero) for the integers lowest <= q <= highest. Integers are stored as float32."""

    scale: Float[Array, "..."]  # broadcasts against the tensor
    zero: Float[Array, "..."]
    lowest: Float[Array, ""]
    highest: Float[Array, ""]

    def integers(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """clip(round(x / scale) + zero, lowest, highest); halves go to the even neighbour."""
        return jnp.clip(jnp.round(x / self.scale) + self.zero, self.lowest, self.highest)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Each number of x as the grid has it. 0 stays exactly 0."""
        return (self.scale * (self.integers(x) - self.zero)).astype(x.dtype)


def highest_of(bits: int) -> Float[Array, ""]:
    """2^bits - 1, exactly."""
    return jnp.float32(2**bits - 1)


def asymmetric(low: Float[Array, "..."], high: Float[Array, "..."], highest: Float[Array, ""]) -> Grid:
    """The integers 0 ... highest from min(low, 0) to max(high, 0), moved so that 0 is one of the numbers."""
    low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
    scale = jnp.maximum((high - low) / highest, SMALLEST_SCALE)
    return Grid(scale, jnp.clip(jnp.round(-low / scale), 0.0, highest), jnp.zeros_like(highest), highest)


def symmetric(largest: Float[Array, "..."], bits: int) -> Grid:
    """Signed integers -2^(bits - 1) ... 2^(bits - 1) - 1, the last of which stands for `largest`; zero is 0.

    (The paper's code takes 0 ... 2^bits - 1 where no number is negative, as for scales of LayerNorms; int8 has no such grid.)
    """
    half = 2 ** (bits - 1)
    scale = jnp.maximum(largest / (half - 1), SMALLEST_SCALE)
    return Grid(scale, jnp.zeros_like(scale), jnp.float32(-half), jnp.float32(half - 1))
