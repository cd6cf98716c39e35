"""Other people's softmax attention, from flat projections [B, L, H * d] to flat."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

LANES = 128  # splash's blocks are multiples of it
MOST_ROWS = 1024  # of a block of splash: a block of logits is 4 MB


def split(x: jax.Array, heads: int) -> jax.Array:
    """[B, L, H * d] as [B, L, H, d]."""
    return x.reshape(*x.shape[:2], heads, -1)


def merged(x: jax.Array) -> jax.Array:
    """[B, L, H, d] as [B, L, H * d]."""
    return x.reshape(*x.shape[:2], -1)


def jax_softmax(heads: int) -> Attention:
    """jax.nn.dot_product_attention as XLA compiles it: logits and softmax in float32."""
    attention = partial(jax.nn.dot_product_attention, implementation="xla")
    return lambda q, k, v: merged(attention(split(q, heads), split(k, heads), split(v, heads)))


def flax_softmax(heads: int) -> Attention:
    """flax's dot_product_attention: logits and softmax of the arrays' type, bfloat16."""
    return lambda q, k, v: merged(nn.dot_product_attention(split(q, heads), split(k, heads), split(v, heads)))


def splash(heads: int) -> Attention:
    """jax's splash attention: tokens filled up to whole blocks, whose keys are hidden as another segment."""

    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        length = q.shape[1]
        block = splash_block(length)
        padded = -(-length // block) * block
        kernel = splash_kernel.make_splash_mha_single_device(
            splash_mask.MultiHeadMask([splash_mask.FullMask((padded, padded))] * heads), block_sizes=_blocks(block)
        )
        rows = [(0, 0), (0, 0), (0, padded - length), (0, 0)]
        q, k, v = (jnp.pad(split(x, heads).transpose(0, 2, 1, 3), rows) for x in (q, k, v))
        segment = (jnp.arange(padded) >= length).astype(jnp.int32)
        run = jax.vmap(partial(kernel, segment_ids=splash_kernel.SegmentIds(segment, segment)))
        out = run(q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k, v)
        return merged(out[:, :, :length].transpose(0, 2, 1, 3))

    return attention


def splash_block(length: int) -> int:
    """The block that adds the fewest tokens; of several the largest."""
    return min(range(LANES, MOST_ROWS + 1, LANES), key=lambda block: (-(-length // block) * block, -block))


def _blocks(rows: int) -> splash_kernel.BlockSizes:
    """All blocks of that many rows; the fastest variant by the cost model: one kernel backward, tokens along the lanes."""
    sizes = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute")
    layout = splash_kernel.QKVLayout.SEQ_MINOR
    return splash_kernel.BlockSizes(
        use_fused_bwd_kernel=True, q_layout=layout, k_layout=layout, v_layout=layout, **dict.fromkeys(sizes, rows)
    )
