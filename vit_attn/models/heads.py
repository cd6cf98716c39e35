"""From tokens to one vector an image."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.attention import Attention
from vit_attn.models.points import passed
from vit_attn.models.transformer import Mlp
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.model import AttentionSpec, ModelSpec


class MapHead(nn.Module):
    """Multi-head attention pooling with one learned query (big_vision's MAPHead). Always softmax, never qk-layernorm.

    `length` is L: tokens from there on are padding.
    """

    spec: ModelSpec

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], length: int) -> Float[Array, "B D"]:
        batch, _, width = x.shape
        dtype = jnp.dtype(self.spec.dtype)
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width), jnp.float32)
        queries = jnp.tile(probe, (batch, 1, 1)).astype(x.dtype)
        softmax = AttentionSpec(h="softmax", qk_norm="none", impl="dense")
        attention = Attention(softmax, self.spec.heads, dtype, name="MultiHeadDotProductAttention_0")
        x = attention(queries, x, Numbers(), length=length)
        y = passed(self, "norm_0", nn.LayerNorm(dtype=dtype, name="LayerNorm_0")(x))
        return passed(self, "sum_0", x + Mlp(self.spec.mlp_dim, dtype, name="MlpBlock_0")(y))[:, 0]
