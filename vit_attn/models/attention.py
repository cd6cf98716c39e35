"""Multi-head attention of any form, with its qk-layernorm, gate and learned alpha."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.gate import Gate
from vit_attn.models.projection import Projection
from vit_attn.ops.attend import attend
from vit_attn.ops.choice import CPU_TILE_LOGITS, KEY_BLOCK, Sizes, choose_impl
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.ops.norm import QKNorm
from vit_attn.parallel.mesh import axis_size
from vit_attn.parallel.sequence.attention import choose_layout, sharded_attend
from vit_attn.spec.model import AttentionSpec


class Attention(nn.Module):
    """Projections, optional qk-layernorm, `ops.attend`, optional gate, output projection.

    Parameters are named and initialised as those of flax's MultiHeadDotProductAttention, query_ln and key_ln (LayerNorm over
    the head width, with scale, without bias) included; with h = softmax it computes the same.
    """

    spec: AttentionSpec
    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B q D"],
        keys: Float[Array, "B k D"],
        numbers: Numbers,
        *,
        length: int,
        train: bool = False,
    ) -> Float[Array, "B q D"]:
        """`length` is L; tokens from there on are padding, and are never attended to."""
        width = queries.shape[-1]
        heads = (self.heads, width // self.heads)

        def project(x: Float[Array, "B L D"], name: str) -> Float[Array, "B L H d"]:
            return Projection((width,), heads, self.dtype, name=name)(x).reshape(*x.shape[:2], *heads)

        q, k, v = project(queries, "query"), project(keys, "key"), project(keys, "value")
        numbers = self._learned(numbers)
        form = self._form(length, keys.shape[1], train)
        impl = self._impl(length, *heads)
        if queries.shape[1] == keys.shape[1] and (axis_size("seq") > 1 or impl != "dense"):
            layout = choose_layout(self.spec.seq_layout, self.spec.h)
            out = sharded_attend(q, k, v, form, numbers, impl=impl, norm=self._norm(heads), seq_layout=layout)
        else:
            pad = (
                None if form.length is None else jnp.where(jnp.arange(keys.shape[1]) < length, 0.0, -jnp.inf)[None, None, None]
            )
            key = self.make_rng("dropout") if form.dropout else None
            out = attend(q, k, v, form, numbers, impl="dense", norm=self._norm(heads), mask=pad, dropout_key=key)
        flat = out.reshape(*queries.shape)
        if self.spec.gate != "none":
            flat = Gate(self.spec, self.heads, self.dtype, name="gate")(flat, queries, numbers.pi_init)
        return Projection(heads, (width,), self.dtype, name="out")(flat)

    def _form(self, length: int, keys: int, train: bool) -> Form:
        on_cpu = jax.default_backend() == "cpu"
        return Form(
            h=self.spec.h,
            qk_norm=self.spec.qk_norm,
            dropout=self.spec.dropout if train else 0.0,
            block=self.spec.block or (keys if on_cpu else KEY_BLOCK),
            tile_logits=CPU_TILE_LOGITS if on_cpu else None,
            length=None if length == keys else length,
        )

    def _impl(self, length: int, heads: int, head_width: int) -> str:
        sizes = Sizes(length, heads, head_width, jnp.dtype(self.dtype).name)
        return choose_impl(self.spec.impl, jax.default_backend(), self.spec.dropout, sizes)

    def _learned(self, numbers: Numbers) -> Numbers:
        """The numbers, with the layer's own alpha if it learns one: a scalar, or one a head."""
        if self.spec.alpha_learned == "none":
            return numbers
        shape = (self.heads,) if self.spec.alpha_learned == "head" else ()
        return numbers._replace(alpha=self.param("alpha", lambda _: jnp.full(shape, numbers.alpha, jnp.float32)))

    def _norm(self, heads: tuple[int, int]) -> QKNorm:
        """query_ln and key_ln."""
        if self.spec.qk_norm == "none":
            return QKNorm()
        shape = heads[1:] if self.spec.qk_norm == "head" else heads
        query, key = (
            Scale(shape, self.spec.qk_norm_scale, self.spec.qk_norm_bias, name=f"{name}_ln") for name in ("query", "key")
        )
        return QKNorm(*query(), *key())


class Scale(nn.Module):
    """The parameters of a LayerNorm: (scale or None, bias or None)."""

    shape: tuple[int, ...]
    scale: bool
    bias: bool

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "..."] | None, Float[Array, "..."] | None]:
        return (
            self.param("scale", nn.initializers.ones, self.shape) if self.scale else None,
            self.param("bias", nn.initializers.zeros, self.shape) if self.bias else None,
        )
