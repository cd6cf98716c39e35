"""Gates: what multiplies the output of attention, before the output projection.

gau: activation(x W), a number for each channel (arXiv:2309.08586, section 4; from GAU, arXiv:2202.10447).
linear, mlp, all_heads: sigmoid(G(x)), a number for each head and query (arXiv:2306.12929, section 4.2 and table 4); in linear
and mlp the gate of a head sees only that head's d of the input's H * d channels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}


def per_head(
    x: Float[Array, "B L D"], kernel: Float[Array, "H a b"], bias: Float[Array, "H b"] | None
) -> Float[Array, "B L Hb"]:
    """Each head's a channels of x times that head's kernel, [B, L, H * b]; D = H * a.

    As one product with a block-diagonal matrix: x keeps its layout, which slices of 64 channels would not on a TPU.
    """
    heads, a, b = kernel.shape
    blocks = jnp.einsum("hab,hg->hagb", kernel, jnp.eye(heads, dtype=kernel.dtype)).reshape(heads * a, heads * b)
    y = x @ blocks.astype(x.dtype)
    return y if bias is None else y + bias.reshape(1, 1, -1).astype(x.dtype)


def gated(
    out: Float[Array, "B L D"], logits: Float[Array, "B L H"], start: Float[Array, ""] | None = None
) -> Float[Array, "B L D"]:
    """sigmoid(logits) times each head's output; D = H * d. With `start`, over sigmoid(start): such logits change nothing."""
    gate = jax.nn.sigmoid(logits.astype(jnp.float32))
    gate = (gate if start is None else gate / jax.nn.sigmoid(start)).astype(out.dtype)
    return out * jnp.repeat(gate, out.shape[-1] // logits.shape[-1], axis=-1)
