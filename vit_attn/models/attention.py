"""Multi-head attention of any form, with its qk-layernorm, gate and learned alpha."""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vit_attn.models.gate import Gate
from vit_attn.models.points import at_points, passed, product_at
from vit_attn.models.projection import Projection
from vit_attn.ops.attend import attend
from vit_attn.ops.choice import CPU_TILE_LOGITS, KEY_BLOCK, Sizes, choose_impl
from vit_attn.ops.form import Form
from vit_attn.ops.moments import logits_and_weights, weight_statistics
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.ops.norm import QKNorm
from vit_attn.parallel.rules import parts
from vit_attn.parallel.sequence.attention import choose_layout, sharded_attend
from vit_attn.spec.model import AttentionSpec

ATTENTION_OUTPUT = "attention_output"  # by which rematerialisation knows it
STATISTICS_LOGITS = 2**25  # at a time, on a device


def record(module: nn.Module, collection: str, compute: Callable[[], dict[str, Array]]) -> None:
    """Sows what `compute` gives, as arrays, if `collection` is mutable (`apply(..., mutable=["stats"])`); else traces nothing.

    "stats": a few numbers of each image, of every layer. "weights": all weights of attention, for a few images.
    """
    if module.is_mutable_collection(collection) and not module.is_initializing():
        for name, value in compute().items():
            module.sow(collection, name, value, init_fn=lambda: None, reduce_fn=lambda _, new: new)


class Attention(nn.Module):
    """Projections, optional qk-layernorm, `ops.attend`, optional gate, output projection.

    In the dense form wherever an operation may wait at a point: only there logits and weights exist.

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
            x = Projection((width,), heads, self.dtype, name=name)(x).reshape(*x.shape[:2], *heads)
            return passed(self, name[0], x)

        q, k, v = project(queries, "query"), project(keys, "key"), project(keys, "value")
        numbers = self._learned(numbers)
        form = self._form(length, keys.shape[1], train)
        impl, norm = self._impl(length, *heads), self._norm(heads)
        at = partial(passed, self) if at_points(self) else None
        if at is None and queries.shape[1] == keys.shape[1] and (parts("tokens") > 1 or impl != "dense"):
            layout = choose_layout(self.spec.seq_layout, self.spec.h)
            out = sharded_attend(q, k, v, form, numbers, impl=impl, norm=norm, seq_layout=layout)
        else:
            pad = (
                None if form.length is None else jnp.where(jnp.arange(keys.shape[1]) < length, 0.0, -jnp.inf)[None, None, None]
            )
            key = self.make_rng("dropout") if form.dropout else None
            products = partial(product_at, self)
            out = product_at(self, "attend", attend)(
                q, k, v, form, numbers, impl="dense", norm=norm, mask=pad, dropout_key=key, at=at, product_at=products
            )
        self._record(q, k, form, numbers, norm)
        flat = passed(self, "context", checkpoint_name(out.reshape(*queries.shape), ATTENTION_OUTPUT))
        if self.spec.gate != "none":
            gate = Gate(self.spec, self.heads, self.dtype, name="gate")
            flat = passed(self, "gated", gate(flat, queries, numbers.pi_init))
        return passed(self, "output", Projection(heads, (width,), self.dtype, name="out")(flat))

    def _record(
        self, q: Float[Array, "B q H d"], k: Float[Array, "B k H d"], form: Form, numbers: Numbers, norm: QKNorm
    ) -> None:
        """What no implementation keeps: the weights, computed once more where they are asked for."""
        turns = _turns(len(q), q.shape[1] * k.shape[1] * self.heads)
        record(self, "stats", lambda: weight_statistics(q, k, form, numbers, norm, turns))
        record(self, "weights", lambda: {"weights": logits_and_weights(q, k, form, numbers, norm)[1]})

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
        own = heads if heads % parts("heads") else heads // parts("heads")  # of one device
        sizes = Sizes(length, own, head_width, jnp.dtype(self.dtype).name)
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


def _turns(batch: int, logits_an_image: int) -> int:
    """In how many equal parts the images go, so that a device has STATISTICS_LOGITS at a time, or those of one image."""
    a_device = batch // math.gcd(batch, parts("batch"))
    fit = STATISTICS_LOGITS * parts("tokens") // logits_an_image
    return next(turns for turns in range(1, a_device + 1) if a_device % turns == 0 and a_device // turns <= max(fit, 1))


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
