"""h and its slope together, in few operations: for those h whose own formulas leave the matrix units waiting.

The hyperbolic tangent is one instruction; exact quotients and log1p are a dozen each. The results are within 5e-6 of h, which
is nothing where weights are then rounded to bfloat16; they are not for float32.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Logits = Float[Array, "..."]


def sigmoid(z: Logits) -> tuple[Logits, Logits]:
    """1 / (1 + e^-z) = (1 + tanh(z/2)) / 2."""
    w = 0.5 * jnp.tanh(0.5 * z) + 0.5
    return w, w - w * w


def softplus(z: Logits) -> tuple[Logits, Logits]:
    """log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)."""
    return jnp.maximum(z, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(z))), sigmoid(z)[0]


def gelu(z: Logits) -> tuple[Logits, Logits]:
    """z u with u = (1 + tanh(c z + c' z^3)) / 2; u' = 2 u (1 - u) (c + 3 c' z^2).   jax.nn.gelu, approximate"""
    c = math.sqrt(2.0 / math.pi)
    cubic = 0.044715 * c
    square = z * z
    u = 0.5 * jnp.tanh(z * (c + cubic * square)) + 0.5
    return z * u, u + z * (2.0 * c + 6.0 * cubic * square) * (u - u * u)


SLOPES: dict[str, Callable[[Logits], tuple[Logits, Logits]]] = {"sigmoid": sigmoid, "softplus": softplus, "gelu": gelu}


def slope(h: str, length: int) -> Callable[[Logits], tuple[Logits, Logits]] | None:
    """The function for `h` over `length` keys, if there is one."""
    if h == "sigmoid_bias":
        return lambda z: sigmoid(z - math.log(length))
    return SLOPES.get(h)
