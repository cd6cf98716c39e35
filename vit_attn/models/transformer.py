"""The encoder: pre-LN blocks of attention and MLP, as big_vision's."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.attention import Attention
from vit_attn.spec.run import ModelSpec


class Mlp(nn.Module):
    """Dense, GELU (tanh approximation), Dense."""

    mlp_dim: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        dense = partial(
            nn.Dense,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.normal(stddev=1e-6),
        )
        hidden = nn.gelu(dense(self.mlp_dim, name="Dense_0")(x))
        return dense(x.shape[-1], name="Dense_1")(hidden)


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x))."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], alpha: float | Float[Array, ""]) -> Float[Array, "B L D"]:
        dtype = jnp.dtype(self.spec.dtype)
        y = nn.LayerNorm(dtype=dtype, name="LayerNorm_0")(x)
        x = x + Attention(self.spec.attention, self.spec.heads, dtype, name="MultiHeadDotProductAttention_0")(y, y, alpha)
        y = nn.LayerNorm(dtype=dtype, name="LayerNorm_1")(x)
        return x + Mlp(self.spec.mlp_dim, dtype, name="MlpBlock_0")(y)


class Encoder(nn.Module):
    """`depth` blocks and a last LayerNorm."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], alpha: float | Float[Array, ""]) -> Float[Array, "B L D"]:
        for index in range(self.spec.depth):
            x = Block(self.spec, name=f"encoderblock_{index}")(x, alpha)
        return nn.LayerNorm(dtype=jnp.dtype(self.spec.dtype), name="encoder_norm")(x)
