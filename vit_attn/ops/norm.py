"""qk-layernorm: LayerNorm of queries and keys, as flax computes it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-6  # flax's
AXES = {"head": (-1,), "width": (-2, -1)}  # what is normalised: each head's d numbers, or all H * d of a token


class QKNorm(NamedTuple):
    """Learned scales and biases, [d] for over = head and [H, d] for over = width; None: 1 and 0."""

    query_scale: Float[Array, "..."] | None = None
    query_bias: Float[Array, "..."] | None = None
    key_scale: Float[Array, "..."] | None = None
    key_bias: Float[Array, "..."] | None = None


PLAIN = QKNorm()


def layer_norm(
    x: Float[Array, "B L H d"], over: str, scale: Float[Array, "..."] | None, bias: Float[Array, "..."] | None
) -> Float[Array, "B L H d"]:
    """(x - mean) / sqrt(var + 1e-6) * scale + bias, computed in float32, of x's type."""
    y = x.astype(jnp.float32)
    mean = y.mean(AXES[over], keepdims=True)
    variance = jnp.maximum(0.0, jnp.square(y).mean(AXES[over], keepdims=True) - jnp.square(mean))
    factor = jax.lax.rsqrt(variance + EPSILON)
    y = (y - mean) * (factor if scale is None else factor * _wide(scale))
    return (y if bias is None else y + _wide(bias)).astype(x.dtype)


def _wide(of_channels: Float[Array, "..."]) -> Float[Array, "1 1 h d"]:
    return jnp.expand_dims(of_channels, tuple(range(4 - of_channels.ndim)))


def normalized(
    q: Float[Array, "B q H d"], k: Float[Array, "B k H d"], over: str, norm: QKNorm
) -> tuple[Float[Array, "B q H d"], Float[Array, "B k H d"]]:
    """Queries and keys, each through its LayerNorm; as they are for over = none."""
    if over == "none":
        return q, k
    return (
        layer_norm(q, over, norm.query_scale, norm.query_bias),
        layer_norm(k, over, norm.key_scale, norm.key_bias),
    )
