"""Attention as a pure function of queries, keys and values."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.nonlinearity import NONLINEARITY, length_scale


def attend(
    q: Float[Array, "B q H d"],
    k: Float[Array, "B k H d"],
    v: Float[Array, "B k H d"],
    h: str,
    alpha: float | Float[Array, ""],
) -> Float[Array, "B q H d"]:
    """sum_j w_ij v_j with w = L^-alpha * h(q.k/sqrt(d)), or w = softmax(q.k/sqrt(d)).   arXiv:2309.08586, section 3.

    L is the number of keys, a CLS token included. The logits and h are float32 whatever the inputs are. 1/sqrt(d) multiplies
    q and L^-alpha the result: both are short arrays, while the logits are L x L.
    """
    scaled = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", scaled, k, preferred_element_type=jnp.float32)
    unscaled = NONLINEARITY[h](scores).astype(v.dtype)
    out = jnp.einsum("bhqk,bkhd->bqhd", unscaled, v, preferred_element_type=jnp.float32)
    return (out * length_scale(h, k.shape[1], alpha)).astype(v.dtype)
