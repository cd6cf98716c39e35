"""Which implementation computes an attention."""

from vit_attn.ops.form import Form

CPU_TILE_LOGITS = 2**18  # 1 MiB of float32: stays in a core's cache
LONG = 1024  # keys from which L x L logits are better never whole


def choose_impl(impl: str, platform: str, form: Form, keys: int, heads: int, head_width: int) -> str:
    """What config.model.attention.impl stands for: `impl` itself, unless it is auto.

    auto: with dropout dense. On CPU blockwise (a few images at a time, so that the logits stay in the cache). On TPU pallas
    if the heads fit its lanes. Otherwise dense, and blockwise from 1024 keys on.
    """
    if impl != "auto":
        return impl
    if form.dropout:
        return "dense"
    if platform == "cpu":
        return "blockwise"
    if platform == "tpu" and not why_not_pallas(heads, head_width):
        return "pallas"
    return "blockwise" if keys >= LONG else "dense"


def why_not_pallas(heads: int, head_width: int) -> str:
    """The reason why the kernels cannot take heads of this width; empty if they can."""
    from vit_attn.ops.pallas.attention import supported

    return supported(heads, head_width)
