"""The encoder: pre-LN blocks of attention and MLP, as big_vision's."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.attention import Attention, record
from vit_attn.ops.moments import infinity_norm, kurtosis, outliers
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.parallel.mesh import spread_tokens
from vit_attn.spec.model import ModelSpec


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
    """x + Attention(LN(x)), then x + MLP(LN(x)).

    Each branch is multiplied by its LayerScale, if there is one (arXiv:2103.17239); in training it is left out for an image
    with the probability `drop`, and divided by 1 - drop else (stochastic depth, arXiv:1603.09382).
    """

    spec: ModelSpec
    drop: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], numbers: Numbers, length: int, train: bool = False) -> Float[Array, "B L D"]:
        dtype = jnp.dtype(self.spec.dtype)
        attention = Attention(self.spec.attention, self.spec.heads, dtype, name="MultiHeadDotProductAttention_0")
        y = nn.LayerNorm(dtype=dtype, name="LayerNorm_0")(x)
        x = spread_tokens(x + self._branch(attention(y, y, numbers, length=length, train=train), "layer_scale_0", train))
        y = nn.LayerNorm(dtype=dtype, name="LayerNorm_1")(x)
        ffn = Mlp(self.spec.mlp_dim, dtype, name="MlpBlock_0")(y)
        x = spread_tokens(x + self._branch(ffn, "layer_scale_1", train))
        record(self, "stats", lambda: activation_statistics(x[:, :length], ffn[:, :length]))
        return x

    def _branch(self, branch: Float[Array, "B L D"], name: str, train: bool) -> Float[Array, "B L D"]:
        if self.spec.layer_scale is not None:
            start = nn.initializers.constant(self.spec.layer_scale)
            branch = branch * self.param(name, start, (self.spec.width,)).reshape(1, 1, -1).astype(branch.dtype)
        if train and self.drop:
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.drop, (len(branch), 1, 1))
            branch = jnp.where(kept, branch / (1.0 - self.drop), 0.0).astype(branch.dtype)
        return branch


def activation_statistics(block: Float[Array, "B L D"], ffn: Float[Array, "B L D"]) -> dict[str, Array]:
    """Of a block's output (the residual stream behind it) and of its MLP's (before LayerScale and the sum), image by image.

    [B] each, but for the 6-sigma outliers of the block's output: counts by channel [B, D] and by token [B, L].
    """
    far = outliers(block)
    return {
        "block_inf_norm": infinity_norm(block),
        "block_kurtosis": kurtosis(block),
        "ffn_inf_norm": infinity_norm(ffn),
        "ffn_kurtosis": kurtosis(ffn),
        "outliers_by_dim": far.sum(axis=1, dtype=jnp.int32),
        "outliers_by_token": far.sum(axis=2, dtype=jnp.int32),
    }


class Encoder(nn.Module):
    """`depth` blocks and a last LayerNorm. `length` is L: tokens from there on are padding."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], numbers: Numbers, length: int, train: bool = False) -> Float[Array, "B L D"]:
        for index in range(self.spec.depth):
            drop = self.spec.drop_path * index / max(self.spec.depth - 1, 1)
            x = Block(self.spec, drop, name=f"encoderblock_{index}")(x, numbers, length, train)
        return nn.LayerNorm(dtype=jnp.dtype(self.spec.dtype), name="encoder_norm")(x)
