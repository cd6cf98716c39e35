"""Long axes a block at a time."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

Carry = TypeVar("Carry")


def over_blocks(body: Callable[[Any, int, Carry], Carry], carry: Carry, length: int, block: int) -> Carry:
    """body(start, size, carry) for each block of an axis; the last one may be smaller, so nothing is padded."""
    full = length // block
    if full == 1:
        carry = body(0, block, carry)
    elif full:
        carry = jax.lax.fori_loop(0, full, lambda i, carry: body(i * block, block, carry), carry)
    return body(full * block, length % block, carry) if length % block else carry


def cut(x: Float[Array, "..."], start: Any, size: int, axis: int) -> Float[Array, "..."]:
    """x[start : start + size] on `axis`; an axis of one is shared by all."""
    if x.shape[axis] in (1, size):
        return x
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def put(whole: Float[Array, "H L d"], part: Float[Array, "H l d"], start: Any) -> Float[Array, "H L d"]:
    """`whole` with `part` from row `start` on."""
    return part if whole.shape == part.shape else jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis=1)


def add(whole: Float[Array, "H L d"], part: Float[Array, "H l d"], start: Any) -> Float[Array, "H L d"]:
    """`whole` with `part` added from row `start` on."""
    return put(whole, cut(whole, start, part.shape[1], axis=1) + part, start)


def product(
    pattern: str, a: Num[Array, "..."], b: Num[Array, "..."], *, preferred_element_type: Any = jnp.float32
) -> Num[Array, "..."]:
    """einsum in b's type, accumulated in float32, or int32. float16 meets float32: a weight may exceed 65504."""
    wide = b.astype(jnp.float32) if b.dtype == jnp.float16 else b
    return jnp.einsum(pattern, a.astype(wide.dtype), wide, preferred_element_type=preferred_element_type)
