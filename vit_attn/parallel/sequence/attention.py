"""Attention of a sequence whose tokens are split over devices, in one of three layouts."""

import math
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
from vit_attn.ops.norm import PLAIN, QKNorm, normalized
from vit_attn.parallel.rules import ambient_partition, ambient_sizes, parts
from vit_attn.parallel.sequence import queries, ring
from vit_attn.parallel.sequence.gather import gather

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
    """ops.attend.attend of global arrays: images, tokens and heads split over the ambient mesh as the rules say.

    q, k and v are of the same tokens. Heads that do not divide are computed by all. All layouts compute the same. Where the
    tokens are padded at their end to a multiple of the devices, form.length is how many there are without: no padded row has
    any influence, whatever it holds, and the outputs there are zeros. ValueError for what no layout knows: causal attention
    and dropout.
    """
    length = form.keys(k.shape[1])
    padded = length < k.shape[1]
    if padded:  # first of all: a NaN or an infinity would survive a product with zero
        q, k, v = (_unpadded(x, length) for x in (q, k, v))
    if math.prod(ambient_sizes().values()) == 1:
        out = attend(q, k[:, :length], v[:, :length], form, numbers, impl=impl, norm=norm)
    elif form.causal or form.dropout:
        raise ValueError("attention on a mesh knows neither a causal mask nor dropout of attention weights")
    else:
        spread = parts("tokens") > 1
        if spread and q.shape[1] % parts("tokens"):
            raise ValueError(f"{q.shape[1]} tokens are not divisible by the {parts('tokens')} devices of mesh axis 'seq'")
        if spread or form.qk_norm == "width":  # of each token alone; `width` needs all heads of it
            q, k = normalized(q, k, form.qk_norm, norm)
            form, norm = replace(form, qk_norm="none"), PLAIN
        if not spread:
            whole = lambda q, k, v, numbers, norm: attend(q, k, v, form, numbers, impl=impl, norm=norm)
            out = _on_shards(whole)(q, k[:, :length], v[:, :length], _arrays(numbers), norm)
        else:
            out = _layout(replace(form, length=length), impl, seq_layout)(q, k, v, _arrays(numbers))
    return _unpadded(out, length) if padded else out


def _layout(form: Form, impl: str, seq_layout: str) -> Callable[..., Array]:
    """(q, k, v, numbers) -> the attention, L^-alpha included, of v's type."""
    if seq_layout not in layouts_of(form.h):
        raise ValueError(f"h = {form.h} knows no layout {seq_layout!r} of the sequence: {', '.join(layouts_of(form.h))}")
    if seq_layout == "gather":
        return lambda q, k, v, numbers: _on_shards(partial(gather, form, impl))(q, k, v, numbers)
    module = {"queries": queries, "ring": ring}[seq_layout]
    local = partial(module.softmax if form.h in ROWWISE else module.pointwise, form, impl)

    def scaled(q: Array, k: Array, v: Array, numbers: Numbers) -> Array:
        if form.h in ROWWISE:
            q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
        scale = jnp.broadcast_to(length_scale(form.h, form.keys(k.shape[1]), numbers.alpha), q.shape[2])
        return (_on_shards(local)(q, k, v) * scale[None, None, :, None]).astype(v.dtype)

    return scaled


def _on_shards(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function` of each device's part of q, k and v, of its heads' numbers, and of all of the other arguments."""

    def of_shards(q: Array, k: Array, v: Array, *rest: Any) -> Array:
        tokens = ambient_partition(("batch", "tokens", "heads", None), q.shape)
        of_heads = PartitionSpec(tokens[2])

        def spec(value: Any) -> Any:
            numbers = isinstance(value, Numbers)  # an alpha may be one a head
            return jax.tree.map(lambda x: of_heads if numbers and x.ndim else PartitionSpec(), value)

        specs = (tokens, tokens, tokens, *map(spec, rest))
        return jax.shard_map(function, in_specs=specs, out_specs=tokens, check_vma=False)(q, k, v, *rest)

    return of_shards


def _arrays(numbers: Numbers) -> Numbers:
    return Numbers(*(jnp.asarray(x, jnp.float32) for x in numbers))


def _unpadded(x: Float[Array, "B L H d"], length: int) -> Float[Array, "B L H d"]:
    """Zeros where the padding is."""
    return jnp.where((jnp.arange(x.shape[1]) < length)[None, :, None, None], x, 0)
