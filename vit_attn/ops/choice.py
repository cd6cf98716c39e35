"""Which implementation computes an attention."""

from typing import NamedTuple

CPU_TILE_LOGITS = 2**21  # in memory at a time: 8 MiB of float32. Rows stay whole: sums over blocks of keys cost more
KEY_BLOCK = 512
LONG = 1024  # keys from which L x L logits are better never whole


class Sizes(NamedTuple):
    """Of an attention; `dtype` is that of the computation."""

    keys: int
    heads: int
    head_width: int
    dtype: str


def choose_impl(impl: str, platform: str, dropout: float, sizes: Sizes) -> str:
    """What config.model.attention.impl stands for: `impl` itself, unless it is auto.

    auto: dense if there is dropout (in evaluation too). On TPU pallas, if the heads fit its lanes and the keys its memory; if
    not, dense, and blockwise from 1024 keys on. Elsewhere blockwise: on CPU a few images or queries at a time, so that the
    logits stay in the cache; on GPU 512 keys at a time (not measured there).
    """
    if impl != "auto":
        return impl
    if dropout:
        return "dense"
    if platform != "tpu":
        return "blockwise"
    if not why_not_pallas(sizes):
        return "pallas"
    return "blockwise" if sizes.keys >= LONG else "dense"


def why_not_pallas(sizes: Sizes) -> str:
    """The reason why the kernels cannot take such heads or so many keys; empty if they can."""
    from vit_attn.ops.pallas.attention import supported

    return supported(sizes.heads, sizes.head_width, sizes.keys, 2 if sizes.dtype == "bfloat16" else 4)
