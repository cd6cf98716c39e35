"""The Vision Transformer. Parameters are named, shaped and initialised as big_vision's (models/vit.py)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.heads import MapHead
from vit_attn.models.points import passed, product_at
from vit_attn.models.posemb import sincos2d
from vit_attn.models.transformer import Encoder
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.parallel.rules import parts, place
from vit_attn.spec.model import ModelSpec


class ViT(nn.Module):
    """Patches, position embedding, encoder, pooling, optional tanh layer, head."""

    spec: ModelSpec

    @nn.compact
    def __call__(
        self, images: Float[Array, "B Y X 3"], numbers: Numbers, train: bool = False
    ) -> tuple[Float[Array, "B classes"], dict[str, Float[Array, "..."]]]:
        """(logits in float32, {"pre_logits": what the head sees [B, D]}). `images` in [-1, 1].

        Where tokens are spread over devices that do not divide L, zeros are appended; nothing attends to them.
        """
        spec = self.spec
        x = self.tokens(images)
        length = x.shape[1]
        padding = -length % parts("tokens")
        x = place(jnp.pad(x, ((0, 0), (0, padding), (0, 0))) if padding else x, "batch", "tokens", None)
        x = Encoder(spec, name="Transformer")(x, numbers, length, train)
        if spec.pool == "map":
            x = MapHead(spec, name="MAPHead_0")(x, length)
        elif spec.pool == "gap":
            x = passed(self, "pooled", x[:, :length].mean(axis=1))
        else:
            x = x[:, 0]
        if spec.rep_size:
            dot_general = product_at(self, "pre_logits_product", jax.lax.dot_general)
            dense = nn.Dense(spec.width, dtype=jnp.dtype(spec.dtype), dot_general=dot_general, name="pre_logits")
            x = passed(self, "representation", nn.tanh(dense(x)))
        head = nn.Dense(
            spec.num_classes,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(spec.head_bias),
            dot_general=product_at(self, "head_product", jax.lax.dot_general),
            name="head",
        )
        logits = passed(self, "class_logits", place(head(x.astype(jnp.float32)), "batch", "classes"))
        return logits, {"pre_logits": x}

    def tokens(self, images: Float[Array, "B Y X 3"]) -> Float[Array, "B L D"]:
        """Embedded patches plus positions; the CLS token (pool = tok) comes first and has no position."""
        spec, dtype = self.spec, jnp.dtype(self.spec.dtype)
        side = (spec.patch, spec.patch)
        images = passed(self, "images", images)
        x = nn.Conv(
            spec.width,
            side,
            strides=side,
            padding="VALID",
            dtype=dtype,
            conv_general_dilated=product_at(self, "embedding_product", jax.lax.conv_general_dilated),
            name="embedding",
        )(images)
        batch, rows, columns, width = x.shape
        x = passed(self, "embedded", x.reshape(batch, rows * columns, width))
        if spec.patch_norm == "patches":
            x = passed(self, "normed", nn.LayerNorm(dtype=dtype, name="patch_norm")(x))
        if spec.posemb == "learn":
            init = nn.initializers.normal(stddev=width**-0.5)
            positions = self.param("pos_embedding", init, (1, rows * columns, width), jnp.float32)
        else:
            positions = sincos2d(rows, columns, width)
        x = x + positions.astype(dtype)
        if spec.pool == "tok":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, width), jnp.float32)
            x = jnp.concatenate([jnp.tile(cls, (batch, 1, 1)).astype(dtype), x], axis=1)
        x = passed(self, "tokens", x)
        if spec.patch_norm == "tokens":
            x = passed(self, "normed", nn.LayerNorm(dtype=dtype, name="patch_norm")(x))
        return x
