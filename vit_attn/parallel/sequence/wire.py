"""Arrays side by side in one, so that one collective carries them all."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOWEST = -1e30  # instead of -inf, which has no remainder


def wire_type(dtype: jnp.dtype) -> jnp.dtype:
    """What results travel as: bfloat16 stays, at half the bytes; float16 could not hold a sum before L^-alpha."""
    return jnp.dtype(jnp.bfloat16 if dtype == jnp.bfloat16 else jnp.float32)


def joined(arrays: Sequence[Float[Array, "... _"]], dtype: jnp.dtype) -> Float[Array, "... c"]:
    """Along the last axis."""
    return jnp.concatenate([x.astype(dtype) for x in arrays], axis=-1)


def parted(x: Float[Array, "... c"], widths: Sequence[int]) -> list[Float[Array, "... _"]]:
    """The arrays that `joined` has joined."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
    return jnp.split(x, ends, axis=-1)


def spelled(number: Float[Array, "... 1"], dtype: jnp.dtype) -> Float[Array, "... digits"]:
    """A float32 number as `digits(dtype)` numbers: as it is, or as a bfloat16 and the remainder, 16 bits of it in all."""
    if dtype != jnp.bfloat16:
        return number
    high = jax.lax.reduce_precision(number, exponent_bits=8, mantissa_bits=7)  # a cast and back could be optimised away
    return jnp.concatenate([high, number - high], axis=-1)


def digits(dtype: jnp.dtype) -> int:
    return 2 if dtype == jnp.bfloat16 else 1


def read(spelling: Float[Array, "... digits"]) -> Float[Array, "... 1"]:
    """The float32 number that is `spelled`."""
    return spelling.astype(jnp.float32).sum(axis=-1, keepdims=True)
