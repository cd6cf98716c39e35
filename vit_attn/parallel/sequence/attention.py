"""Attention of a sequence whose tokens are split over devices, in one of three layouts."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import ROWWISE, Numbers, length_scale
from vit_attn.ops.norm import QKNorm, normalized
from vit_attn.parallel.sequence import queries, ring
from vit_attn.parallel.sequence.axis import SEQ
from vit_attn.parallel.sequence.gather import gather

DATA = "data"
LAYOUTS = ("gather", "queries", "ring")


def layouts_of(h: str) -> tuple[str, ...]:
    """Clipped softmax needs its row's total before the first weight, so that no share of a row can be computed alone."""
    return ("gather",) if h in ROWWISE and ROWWISE[h].clipped else LAYOUTS


def choose_layout(seq_layout: str, h: str) -> str:
    """The layout that `seq_layout` asks for; "auto": the one that sends least, queries, or gather where h knows no other.

    A shard of n being S bytes, forward and backward together send 5 (n - 1) S in queries and 6 (n - 1) S in the others: the
    backward sums one gradient over the devices instead of two. A softmax's statistics add 5 %. Compiled for v5e (benchmarks/
    seq_parallel.py: ViT-S/8, 4 devices a sequence) queries also computes least for relu, and as little as ring for softmax.
    """
    if seq_layout != "auto":
        return seq_layout
    return "queries" if "queries" in layouts_of(h) else "gather"


def sharded_attend(
    q: Float[Array, "B q H d"],
    k: Float[Array, "B k H d"],
    v: Float[Array, "B k H d"],
    form: Form,
    numbers: Numbers,
    *,
    impl: str,
    norm: QKNorm,
    seq_layout: str,
) -> Float[Array, "B q H d"]:
    """ops.attend.attend of global arrays: images split over the ambient mesh's axis `data`, tokens over its axis `seq`.

    q, k and v are of the same tokens. Other axes of the mesh replicate. All layouts compute the same. Where the tokens are
    padded at their end to a multiple of the devices, form.length is how many there are without: no padded row has any
    influence, whatever it holds, and the outputs there are zeros. ValueError for what no layout knows: causal attention and
    dropout.
    """
    length = form.keys(k.shape[1])
    padded = length < k.shape[1]
    if padded:  # first of all: a NaN or an infinity would survive a product with zero
        q, k, v = (_unpadded(x, length) for x in (q, k, v))
    shape = dict(jax.sharding.get_abstract_mesh().shape)
    if shape.get(DATA, 1) == shape.get(SEQ, 1) == 1:
        out = attend(q, k[:, :length], v[:, :length], form, numbers, impl=impl, norm=norm)
    elif form.causal or form.dropout:
        raise ValueError("attention on a mesh knows neither a causal mask nor dropout of attention weights")
    elif shape.get(SEQ, 1) == 1:
        whole = lambda q, k, v, numbers, norm: attend(q, k, v, form, numbers, impl=impl, norm=norm)
        out = _on_shards(whole, shape, impl)(q, k[:, :length], v[:, :length], _arrays(numbers), norm)
    else:
        q, k = normalized(q, k, form.qk_norm, norm)  # of each token alone: nothing has to travel for it
        layout = _layout(replace(form, qk_norm="none", length=length), impl, seq_layout)
        out = layout(q, k, v, _arrays(numbers), shape)
    return _unpadded(out, length) if padded else out


def _layout(form: Form, impl: str, seq_layout: str) -> Callable[..., Array]:
    """(q, k, v, numbers, the mesh's shape) -> the attention, L^-alpha included, of v's type."""
    if seq_layout not in layouts_of(form.h):
        raise ValueError(f"h = {form.h} knows no layout {seq_layout!r} of the sequence: {', '.join(layouts_of(form.h))}")
    if seq_layout == "gather":
        return lambda q, k, v, numbers, shape: _on_shards(partial(gather, form, impl), shape, impl)(q, k, v, numbers)
    module = {"queries": queries, "ring": ring}[seq_layout]
    local = partial(module.softmax if form.h in ROWWISE else module.pointwise, form, impl)

    def scaled(q: Array, k: Array, v: Array, numbers: Numbers, shape: dict[str, int]) -> Array:
        if form.h in ROWWISE:
            q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
        scale = jnp.broadcast_to(length_scale(form.h, form.keys(k.shape[1]), numbers.alpha), q.shape[2])
        return (_on_shards(local, shape, impl)(q, k, v) * scale[None, None, :, None]).astype(v.dtype)

    return scaled


def _on_shards(function: Callable[..., Array], shape: dict[str, int], impl: str) -> Callable[..., Array]:
    """`function` of each device's part of q, k and v and of all of the other arguments."""
    tokens = PartitionSpec(*(name if name in shape else None for name in (DATA, SEQ)))
    named = set(shape) if impl == "pallas" else {name for name, size in shape.items() if name in (DATA, SEQ) or size == 1}

    def of_shards(q: Array, k: Array, v: Array, *rest: Any) -> Array:
        specs = (tokens, tokens, tokens, *(PartitionSpec() for _ in rest))
        return jax.shard_map(function, in_specs=specs, out_specs=tokens, axis_names=named, check_vma=False)(q, k, v, *rest)

    return of_shards


def _arrays(numbers: Numbers) -> Numbers:
    return Numbers(*(jnp.asarray(x, jnp.float32) for x in numbers))


def _unpadded(x: Float[Array, "B L H d"], length: int) -> Float[Array, "B L H d"]:
    """Zeros where the padding is."""
    return jnp.where((jnp.arange(x.shape[1]) < length)[None, :, None, None], x, 0)
