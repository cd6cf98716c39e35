"""Keys and values stay: queries are gathered, every device computes its keys' share for all of them and sends it home."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.form import Form
from vit_attn.ops.rows import Rows
from vit_attn.parallel.sequence import axis
from vit_attn.parallel.sequence.local import (
    Softmaxed,
    finished,
    pull_softmax,
    pull_sum,
    softmax_form,
    softmax_share,
    sum_of,
    together,
)
from vit_attn.parallel.sequence.wire import digits, joined, parted, read, spelled, wire_type


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pointwise(
    form: Form, impl: str, q: Float[Array, "b l H d"], k: Float[Array, "b l H d"], v: Float[Array, "b l H d"]
) -> Float[Array, "b l H d"]:
    """sum_j h(z_ij) v_j: an all-gather and a reduce-scatter, and the same again in the backward. Padded v must be zeros."""
    return axis.scattered_sum(sum_of(form, impl, axis.gathered(q), k, v).astype(wire_type(v.dtype)))


def _pointwise_forward(form: Form, impl: str, q: Array, k: Array, v: Array) -> tuple[Array, Any]:
    return pointwise(form, impl, q, k, v), (q, k, v)


def _pointwise_backward(form: Form, impl: str, saved: Any, d_out: Array) -> tuple[Array, Array, Array]:
    (q, k, v), d_out = axis.later(saved, d_out)
    whole = axis.gathered(joined((q, d_out), wire_type(q.dtype)))
    all_q, all_d = parted(whole, (q.shape[-1], v.shape[-1]))
    dq, dk, dv = pull_sum(form, impl, all_q.astype(q.dtype), k, v, all_d)
    return axis.scattered_sum(dq.astype(wire_type(q.dtype))).astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def softmax(
    form: Form, impl: str, q: Float[Array, "b l H d"], k: Float[Array, "b l H d"], v: Float[Array, "b l H d"]
) -> Float[Array, "b l H d"]:
    """sum_j softmax(q_i.k_j) v_j or with softmax1: an all-gather and an all-to-all; backward: all-gather, reduce-scatter.

    Each device's share travels with its own largest logit and row total beside it: no collective is needed for a maximum,
    and the owner of a query weighs the shares exactly. `q` is scaled by 1/sqrt(d).
    """
    return _softmax(form, impl, q, k, v)[0]


def _softmax(form: Form, impl: str, q: Array, k: Array, v: Array) -> tuple[Array, Rows]:
    dtype, length = wire_type(v.dtype), form.keys(axis.devices() * k.shape[1])
    mine = softmax_share(softmax_form(form, impl), axis.gathered(q), k, v, axis.hides(length, k.shape[1]))
    shares = axis.exchanged(joined((mine.out, *(spelled(x, dtype) for x in mine.rows)), dtype))
    parts = (parted(share, (v.shape[-1], digits(dtype), digits(dtype))) for share in shares)
    each = [Softmaxed(out.astype(jnp.float32), Rows(read(top), read(total))) for out, top, total in parts]
    out, rows = finished(form, reduce(together, each))
    return out.astype(dtype), rows


def _softmax_forward(form: Form, impl: str, q: Array, k: Array, v: Array) -> tuple[Array, Any]:
    out, rows = _softmax(form, impl, q, k, v)
    return out, (q, k, v, out, rows)


def _softmax_backward(form: Form, impl: str, saved: Any, d_out: Array) -> tuple[Array, Array, Array]:
    (q, k, v, out, rows), d_out = axis.later(saved, d_out)
    dtype = wire_type(q.dtype)
    delta = (d_out.astype(jnp.float32) * out).sum(axis=-1, keepdims=True)
    whole = axis.gathered(joined((q, d_out, *(spelled(x, dtype) for x in (*rows, delta))), dtype))
    all_q, all_d, *numbers = parted(whole, (q.shape[-1], v.shape[-1], *[digits(dtype)] * 3))
    top, total, delta = map(read, numbers)
    mask = axis.hides(form.keys(axis.devices() * k.shape[1]), k.shape[1])
    blocks = softmax_form(form, impl)
    dq, dk, dv = pull_softmax(blocks, all_q.astype(q.dtype), k, v, mask, Rows(top, total), delta, all_d)
    return axis.scattered_sum(dq.astype(dtype)).astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


softmax.defvjp(_softmax_forward, _softmax_backward)
