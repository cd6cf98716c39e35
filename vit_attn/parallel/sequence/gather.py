"""Every device attends over all keys: keys and values are gathered, for the backward once more."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.parallel.sequence import axis
from vit_attn.parallel.sequence.wire import joined, parted


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def gather(
    form: Form,
    impl: str,
    q: Float[Array, "b l H d"],
    k: Float[Array, "b l H d"],
    v: Float[Array, "b l H d"],
    numbers: Numbers,
) -> Float[Array, "b l H d"]:
    """The attention of this device's queries, with any h: one all-gather. Backward: an all-gather and a reduce-scatter."""
    return attend(q, *_all(form, k, v), form, numbers, impl=impl)


def _forward(form: Form, impl: str, q: Array, k: Array, v: Array, numbers: Numbers) -> tuple[Array, Any]:
    return gather(form, impl, q, k, v, numbers), (q, k, v, numbers)


def _backward(form: Form, impl: str, saved: Any, d_out: Array) -> tuple[Array, Array, Array, Numbers]:
    (q, k, v, numbers), d_out = axis.later(saved, d_out)
    _, pull = jax.vjp(lambda q, k, v, numbers: attend(q, k, v, form, numbers, impl=impl), q, *_all(form, k, v), numbers)
    dq, dk, dv, d_numbers = pull(d_out)
    whole = joined((dk, dv), jnp.result_type(dk, dv))
    padding = axis.devices() * k.shape[1] - whole.shape[1]
    own = axis.scattered_sum(jnp.pad(whole, ((0, 0), (0, padding), (0, 0), (0, 0))))
    dk, dv = parted(own, (k.shape[-1], v.shape[-1]))
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), d_numbers


gather.defvjp(_forward, _backward)


def _all(form: Form, k: Array, v: Array) -> tuple[Float[Array, "b L H d"], Float[Array, "b L H d"]]:
    """The keys and values of all devices, without the padding."""
    whole = axis.gathered(joined((k, v), jnp.result_type(k, v)))[:, : form.keys(axis.devices() * k.shape[1])]
    keys, values = parted(whole, (k.shape[-1], v.shape[-1]))
    return keys.astype(k.dtype), values.astype(v.dtype)
