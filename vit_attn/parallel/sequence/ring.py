"""Queries stay: keys and values go round from device to device, in the backward followed by their gradients.

Ring attention (arXiv:2310.01889), with n - 1 steps of n devices. The own keys' gradients stay at home, so that those of the
others need n - 1 steps too.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.form import Form
from vit_attn.ops.rows import Rows
from vit_attn.parallel.sequence import axis
from vit_attn.parallel.sequence.local import (
    finished,
    pull_softmax,
    pull_sum,
    softmax_form,
    softmax_share,
    sum_of,
    together,
)
from vit_attn.parallel.sequence.wire import joined, parted, wire_type


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pointwise(
    form: Form, impl: str, q: Float[Array, "b l H d"], k: Float[Array, "b l H d"], v: Float[Array, "b l H d"]
) -> Float[Array, "b l H d"]:
    """sum_j h(z_ij) v_j in float32: n - 1 permutes, twice that in the backward. Padded v must be zeros."""
    out = jnp.zeros((*q.shape[:3], v.shape[-1]), jnp.float32)
    for kv in _visitors(k, v):
        out = out + sum_of(form, impl, q, *kv)
    return out


def _pointwise_forward(form: Form, impl: str, q: Array, k: Array, v: Array) -> tuple[Array, Any]:
    return pointwise(form, impl, q, k, v), (q, k, v)


def _pointwise_backward(form: Form, impl: str, saved: Any, d_out: Array) -> tuple[Array, Array, Array]:
    (q, k, v), d_out = axis.later(saved, d_out)
    return _pulled(q, k, v, lambda hops, q, k, v: pull_sum(form, impl, q, k, v, d_out))


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def softmax(
    form: Form, impl: str, q: Float[Array, "b l H d"], k: Float[Array, "b l H d"], v: Float[Array, "b l H d"]
) -> Float[Array, "b l H d"]:
    """sum_j softmax(q_i.k_j) v_j or with softmax1, in float32: the permutes of `pointwise`. `q` is scaled by 1/sqrt(d)."""
    return _softmax(form, impl, q, k, v)[0]


def _softmax(form: Form, impl: str, q: Array, k: Array, v: Array) -> tuple[Array, Rows]:
    length, share = form.keys(axis.devices() * k.shape[1]), None
    for hops, kv in enumerate(_visitors(k, v)):
        new = softmax_share(softmax_form(form, impl), q, *kv, axis.hides(length, k.shape[1], hops))
        share = new if share is None else together(share, new)
    assert share is not None
    return finished(form, share)


def _softmax_forward(form: Form, impl: str, q: Array, k: Array, v: Array) -> tuple[Array, Any]:
    out, rows = _softmax(form, impl, q, k, v)
    return out, (q, k, v, out.astype(v.dtype), rows)


def _softmax_backward(form: Form, impl: str, saved: Any, d_out: Array) -> tuple[Array, Array, Array]:
    (q, k, v, out, rows), d_out = axis.later(saved, d_out)
    length, delta = form.keys(axis.devices() * k.shape[1]), (d_out * out).sum(axis=-1, keepdims=True)

    def pull(hops: int, q: Array, key: Array, value: Array) -> tuple[Array, Array, Array]:
        mask = axis.hides(length, k.shape[1], hops)
        return pull_softmax(softmax_form(form, impl), q, key, value, mask, rows, delta, d_out)

    return _pulled(q, k, v, pull)


softmax.defvjp(_softmax_forward, _softmax_backward)


def _visitors(k: Array, v: Array) -> Iterator[tuple[Array, Array]]:
    """Keys and values of this device, of the one before it, and so on round."""
    pair = joined((k, v), jnp.result_type(k, v))
    for hops in range(axis.devices()):
        following = axis.passed_on(pair) if hops < axis.devices() - 1 else pair  # on its way during what is computed now
        key, value = parted(pair, (k.shape[-1], v.shape[-1]))
        yield key.astype(k.dtype), value.astype(v.dtype)
        pair = following


def _pulled(q: Array, k: Array, v: Array, pull: Callable[..., tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    """The gradients of q, k and v; pull(hops, q, keys, values) gives those that the keys from `hops` devices before cause."""
    steps = (pull(hops, q, *kv) for hops, kv in enumerate(_visitors(k, v)))
    dq, *own = (x.astype(jnp.float32) for x in next(steps))
    home, away = joined(own, jnp.float32), None
    for step, *pair in steps:  # the sum follows its keys, one device behind
        new = joined(pair, jnp.float32)
        away = (new if away is None else new + axis.passed_on(away)).astype(wire_type(k.dtype))
        dq = dq + step
    if away is not None:
        home = home + axis.passed_on(away)
    dk, dv = parted(home, (k.shape[-1], v.shape[-1]))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)
