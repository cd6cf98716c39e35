"""The encoder: pre-LN blocks of attention and MLP, as big_vision's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.attention import ATTENTION_OUTPUT, Attention, record
from vit_attn.models.points import COLLECTION, passed, product_at
from vit_attn.ops.moments import infinity_norm, kurtosis, outliers
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.parallel.rules import place
from vit_attn.spec.model import REMAT, ModelSpec


class Mlp(nn.Module):
    """Dense, GELU (tanh approximation), Dense."""

    mlp_dim: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        def dense(features: int, name: str, product: str) -> nn.Dense:
            return nn.Dense(
                features,
                dtype=self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(stddev=1e-6),
                dot_general=product_at(self, product, jax.lax.dot_general),
                name=name,
            )

        hidden = passed(self, "hidden", nn.gelu(dense(self.mlp_dim, "Dense_0", "hidden_product")(x)))
        return passed(self, "output", dense(x.shape[-1], "Dense_1", "output_product")(hidden))


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)).

    Each branch is multiplied by its LayerScale, if there is one (arXiv:2103.17239); in training it is left out for an image
    with the probability `drop`, and divided by 1 - drop else (stochastic depth, arXiv:1603.09382).
    """

    spec: ModelSpec

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], numbers: Numbers, drop: Float[Array, ""], *, length: int, train: bool = False
    ) -> Float[Array, "B L D"]:
        dtype = jnp.dtype(self.spec.dtype)
        attention = Attention(self.spec.attention, self.spec.heads, dtype, name="MultiHeadDotProductAttention_0")
        y = passed(self, "norm_0", place(nn.LayerNorm(dtype=dtype, name="LayerNorm_0")(x), "batch", "tokens", None))
        y = self._branch(attention(y, y, numbers, length=length, train=train), "layer_scale_0", drop, train)
        x = passed(self, "sum_0", place(x + y, "batch", "tokens", None))
        y = passed(self, "norm_1", place(nn.LayerNorm(dtype=dtype, name="LayerNorm_1")(x), "batch", "tokens", None))
        ffn = Mlp(self.spec.mlp_dim, dtype, name="MlpBlock_0")(y)
        x = x + self._branch(ffn, "layer_scale_1", drop, train)
        x = passed(self, "sum_1", place(x, "batch", "tokens", None))
        record(self, "stats", lambda: activation_statistics(x[:, :length], ffn[:, :length]))
        return x

    def _branch(self, branch: Float[Array, "B L D"], name: str, drop: Float[Array, ""], train: bool) -> Float[Array, "B L D"]:
        if self.spec.layer_scale is not None:
            start = nn.initializers.constant(self.spec.layer_scale)
            branch = branch * self.param(name, start, (self.spec.width,)).reshape(1, 1, -1).astype(branch.dtype)
        if train and self.spec.drop_path:
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - drop, (len(branch), 1, 1))
            branch = jnp.where(kept, branch / (1.0 - drop), 0.0).astype(branch.dtype)
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


def kept_by(spec: ModelSpec) -> Callable[..., bool] | None:
    """What a block keeps for its backward, as a policy of jax.checkpoint; None: everything, and nothing is computed again.

    The compiler sees through unrolled blocks, and computes again what is cheap. A loop it does not see through: whatever is
    not left out here is written out, layer by layer. For v5e a scanned S/16 step with everything kept was compiled to 1.35 of
    the time and 3.7 times the memory of one with matrix products kept (benchmarks/tpu_step.py).
    """
    policies = jax.checkpoint_policies
    if spec.remat in REMAT:
        return getattr(policies, spec.remat)
    if spec.remat == "none" or not spec.scan_layers:
        return None
    return policies.save_from_both_policies(policies.dots_saveable, policies.save_only_these_names(ATTENTION_OUTPUT))


class Layer(NamedTuple):
    """What one block is given besides the tokens."""

    variables: Any
    drop: Float[Array, ""]
    dropout_key: Array | None


class Encoder(nn.Module):
    """`depth` blocks and a last LayerNorm. `length` is L: tokens from there on are padding.

    Blocks run one after another in the program's text, or as a loop (spec.scan_layers), each with what spec.remat says
    rematerialised: the parameters, names and numbers are the same.
    """

    spec: ModelSpec

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], numbers: Numbers, length: int, train: bool = False) -> Float[Array, "B L D"]:
        names = [f"encoderblock_{index}" for index in range(self.spec.depth)]
        if self.is_initializing():
            for name in names:
                x = Block(self.spec, name=name)(x, numbers, jnp.float32(0), length=length)
        else:
            x = self._through(names, x, numbers, length, train)
        return passed(self, "last_norm", nn.LayerNorm(dtype=jnp.dtype(self.spec.dtype), name="encoder_norm")(x))

    def _through(
        self, names: list[str], x: Float[Array, "B L D"], numbers: Numbers, length: int, train: bool
    ) -> Float[Array, "B L D"]:
        """All blocks, of parameters that are there. What they sow is found under their names."""
        block = Block(self.spec, parent=None)
        sown = [name for name in ("stats", "weights", COLLECTION) if self.is_mutable_collection(name)]

        def one(x: Float[Array, "B L D"], layer: Layer, numbers: Numbers) -> tuple[Float[Array, "B L D"], Any]:
            rngs = {} if layer.dropout_key is None else {"dropout": layer.dropout_key}
            return block.apply(layer.variables, x, numbers, layer.drop, length=length, train=train, rngs=rngs, mutable=sown)

        if policy := kept_by(self.spec):
            one = jax.checkpoint(one, policy=policy, prevent_cse=not self.spec.scan_layers)
        layers = self._layers(names, train)
        if self.spec.scan_layers:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
            x, found = jax.lax.scan(lambda x, layer: one(x, layer, numbers), x, stacked)
            each = [jax.tree.map(lambda leaf, index=index: leaf[index], found) for index in range(len(names))]
        else:
            each = []
            for name, layer in zip(names, layers, strict=True):
                with jax.named_scope(name):
                    x, found = one(x, layer, numbers)
                each.append(found)
        for name, found in zip(names, each, strict=True):
            for collection, values in found.items():
                self.put_variable(collection, name, values)
        return x

    def _layers(self, names: list[str], train: bool) -> list[Layer]:
        rate, depth = self.spec.drop_path, len(names)
        key = self.make_rng("dropout") if train and self.has_rng("dropout") else None
        keys = [None] * depth if key is None else list(jax.random.split(key, depth))
        return [
            Layer(self._variables_of(name), jnp.float32(rate * index / max(depth - 1, 1)), keys[index])
            for index, name in enumerate(names)
        ]

    def _variables_of(self, name: str) -> dict[str, Any]:
        """A block's parameters, and the operations at its points if there are any."""
        given = {key: self.variables.get(key, {}) for key in ("params", COLLECTION)}
        return {key: values[name] for key, values in given.items() if name in values}
