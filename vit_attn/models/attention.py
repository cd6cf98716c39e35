"""Multi-head attention with any h."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.attend import attend, choose_impl
from vit_attn.spec.run import AttentionSpec


class Attention(nn.Module):
    """Projections, optional qk-layernorm, `ops.attend`, output projection.

    Parameters are named and initialised as those of flax's MultiHeadDotProductAttention, query_ln and key_ln (LayerNorm over
    the head width, with scale, without bias) included; with h = softmax it computes the same.
    """

    spec: AttentionSpec
    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, queries: Float[Array, "B q D"], keys: Float[Array, "B k D"], alpha: float | Float[Array, ""]
    ) -> Float[Array, "B q D"]:
        width = queries.shape[-1]

        def project(x: Float[Array, "B L D"], name: str) -> Float[Array, "B L H d"]:
            shape = (self.heads, width // self.heads)
            dense = nn.DenseGeneral(shape, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)
            return dense(x)

        q, k, v = project(queries, "query"), project(keys, "key"), project(keys, "value")
        if self.spec.qk_norm == "head":
            q = nn.LayerNorm(use_bias=False, dtype=self.dtype, name="query_ln")(q)
            k = nn.LayerNorm(use_bias=False, dtype=self.dtype, name="key_ln")(k)
        impl = choose_impl(self.spec.impl, jax.default_backend(), jax.device_count())
        out = attend(q, k, v, self.spec.h, alpha, impl)
        return nn.DenseGeneral(
            width, axis=(-2, -1), dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="out"
        )(out)
