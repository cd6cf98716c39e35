"""The points of the network: tensors on their way, by name, at which another operation may step in.

`apply({"params": ..., "points": {..., "logits": operation}}, ...)` sends the tensor "logits" of that module through the
operation. With mutable=["points"] what the operations have become comes back; where none waits, the tensor itself does. In an
ordinary pass there is no such collection, and nothing is traced. Being variables, operations go through jit, layers that are
scanned, and rematerialisation as parameters do; so all blocks must have operations of one structure, or none.

    ViT        images, embedded, tokens (with positions and CLS), normed (behind the LayerNorm of the patches), pooled,
               representation, class_logits
    Encoder    encoderblock_I/..., last_norm
    Block      norm_0, attention/..., sum_0, norm_1, mlp/..., sum_1
    Attention  q, k, v, q_norm, k_norm, logits (behind 1/sqrt(d)), unscaled_weights (h(z), where h has an alpha),
               weights (with L^-alpha), context, gated, output
    Mlp        hidden (behind GELU), output
    MapHead    attention/..., norm_0, mlp/..., sum_0

Inputs of matrix products are all among them: images, norm_0, q, k, weights, v, context or gated, norm_1, hidden, pooled (of
pool = tok: last_norm), representation. Gates, LayerScale and biases are left as they are.

Those products have names too (`product_at`), behind the module that has their kernel:

    ViT        embedding_product, pre_logits_product, head_product
    Attention  query/product, key/product, value/product, out/product, logits_product, context_product;
               attend: all of ops.attend
    Mlp        hidden_product, output_product
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import flax.linen as nn
from jaxtyping import Array, Float

COLLECTION = "points"


class Operation(Protocol):
    """A pytree. Its arrays may differ from point to point, its static part is compiled in."""

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Operation"]:
        """(what goes on in the place of x, the operation as the next tensor will meet it)."""


def at_points(module: nn.Module) -> bool:
    """Whether this pass has to do with points at all."""
    return not module.is_initializing() and (module.is_mutable_collection(COLLECTION) or COLLECTION in module.variables)


def passed(module: nn.Module, name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x, as the operation at the point `name` of this module makes it."""
    if not at_points(module):
        return x
    after: Any = x
    if module.has_variable(COLLECTION, name):
        x, after = module.get_variable(COLLECTION, name)(x)
    if module.is_mutable_collection(COLLECTION):
        module.put_variable(COLLECTION, name, after)
    return x


def product_at(module: nn.Module, name: str, product: Callable[..., Array]) -> Callable[..., Array]:
    """`product`, or the operation that waits at `name`: called as `product` is, with `product` itself in front.

    (Of a network that looks for its points, `mutable=["points"]`, these are none: they have no tensor of their own.)
    """
    if module.is_initializing() or not module.has_variable(COLLECTION, name):
        return product
    operation: Any = module.get_variable(COLLECTION, name)
    return partial(operation, product)
