"""Attention as a pure function of queries, keys and values."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.nonlinearity import NONLINEARITY, length_scale

CHUNK_LOGITS = 2**18  # that a chunk may have: 1 MiB, so that they stay in a core's cache


def attend(
    q: Float[Array, "B q H d"],
    k: Float[Array, "B k H d"],
    v: Float[Array, "B k H d"],
    h: str,
    alpha: float | Float[Array, ""],
    impl: str = "dense",
) -> Float[Array, "B q H d"]:
    """sum_j w_ij v_j with w = L^-alpha * h(q.k/sqrt(d)), or w = softmax(q.k/sqrt(d)).   arXiv:2309.08586, section 3.

    L is the number of keys, a CLS token included. The logits and h are float32 whatever the inputs are. 1/sqrt(d) multiplies
    q and L^-alpha the result: both are short arrays, while the logits are L x L. All implementations compute the same.
    """
    scaled = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    out = IMPLEMENTATIONS[impl](h, scaled, k, v)
    return (out * length_scale(h, k.shape[1], alpha)).astype(v.dtype)


def _dense(
    h: str, q: Float[Array, "B q H d"], k: Float[Array, "B k H d"], v: Float[Array, "B k H d"]
) -> Float[Array, "B q H d"]:
    """h(q k^T) v in float32, of all images at once."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    return jnp.einsum("bhqk,bkhd->bqhd", NONLINEARITY[h](scores).astype(v.dtype), v, preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(
    h: str, q: Float[Array, "B q H d"], k: Float[Array, "B k H d"], v: Float[Array, "B k H d"]
) -> Float[Array, "B q H d"]:
    """The same, a few images after the other, so that the logits never leave the cache; the backward makes them again.

    For one CPU device. On 2 cores at S/16 (L = 197, batch 16) forward and gradients took half of the time of `_dense`.
    """
    return _map_chunks(partial(_dense, h), (q, k, v))


def _chunked_forward(h: str, q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _chunked(h, q, k, v), (q, k, v)


def _chunked_backward(h: str, inputs: tuple[Array, Array, Array], d_out: Array) -> tuple[Array, Array, Array]:
    def one(q: Array, k: Array, v: Array, d_out: Array) -> tuple[Array, Array, Array]:
        return jax.vjp(partial(_dense, h), q, k, v)[1](d_out)

    return _map_chunks(one, (*inputs, d_out))


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _map_chunks(function, arrays):  # type: ignore[no-untyped-def]
    """`function` over the first axis of all arrays, in equal chunks whose logits are at most CHUNK_LOGITS (or one image)."""
    batch, queries, heads, _ = arrays[0].shape
    most = max(1, CHUNK_LOGITS // (heads * queries * arrays[1].shape[1]))
    size = next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
    if size == batch:
        return function(*arrays)
    chunks = [x.reshape(batch // size, size, *x.shape[1:]) for x in arrays]
    return jax.tree.map(lambda x: x.reshape(batch, *x.shape[2:]), jax.lax.map(lambda chunk: function(*chunk), tuple(chunks)))


IMPLEMENTATIONS: dict[str, Callable[[str, Array, Array, Array], Array]] = {"dense": _dense, "chunked": _chunked}


def choose_impl(impl: str, platform: str, devices: int) -> str:
    """The implementation that config.model.attention.impl stands for on these devices."""
    if impl != "auto":
        return impl
    return "chunked" if platform == "cpu" and devices == 1 else "dense"
