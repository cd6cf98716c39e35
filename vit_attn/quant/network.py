"""A quantized network as integers: which products of it are int8 x int8 -> int32, and what waits at its points then.

A product is one of integers if both of its operands are quantized. It rounds its operands itself: a point that only such
products read has no operation of its own. What is left at the other points is as simulated, in floating point.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers, length_scale
from vit_attn.ops.pallas.int8 import bounds, why_not_int8
from vit_attn.quant.grid import Grid
from vit_attn.quant.integer import (
    AttentionProduct,
    Coded,
    FusedAttention,
    Integers,
    KernelProduct,
    Passing,
    Stored,
    integers_of,
)
from vit_attn.quant.names import Names
from vit_attn.quant.operation import Rounding
from vit_attn.quant.weights import INTO_HEADS
from vit_attn.spec.model import ModelSpec
from vit_attn.store.paths import nested, paths_of

ATTENTION, MLP = "MultiHeadDotProductAttention_0", "MlpBlock_0"
STREAM = ("tokens", "normed", "sum_0", "sum_1")  # of residuals: read by a LayerNorm and by a later sum


class Kernel(NamedTuple):
    """A product with a kernel: where the operation waits, what is multiplied, and by what. Paths."""

    product: str
    inputs: str
    kernel: str


class Rounded(NamedTuple):
    """What a network was quantized to: the grids of weights and of points, by path; what has none is float32."""

    weights: Mapping[str, Grid]
    points: Mapping[str, Grid]


class IntegerNetwork(NamedTuple):
    """Variables of the network: `params`, kernels of integer products in int8; `points`: the operations."""

    params: Any
    points: Any

    def __call__(self, model: ModelSpec, pixels: Float[Array, "B Y X 3"], numbers: Numbers) -> Float[Array, "B classes"]:
        return ViT(model).apply({"params": self.params, "points": self.points}, pixels, numbers)[0]


def integer_network(
    model: ModelSpec, params: Any, names: Names, found: Rounded, numbers: Numbers, fused: bool = False
) -> IntegerNetwork:
    """`params` in float32; grids of at most 8 bits. `numbers`: alpha, where h(z) is what is quantized (config.fold_length).

    fused: attention in one kernel, for a TPU, where nothing of it is excluded and the kernel takes it.
    """
    grids = {path: integers_of(grid) for path, grid in found.points.items()}
    leaves, rounded_there = paths_of(params), set[str]()
    operations: dict[str, Any] = {}
    whole = [one for one in kernels(model, names) if one.inputs in grids and one.kernel in found.weights]
    multiplied = {path for path in grids if _only_multiplied(path, model, {one.product for one in whole})}
    kernel_gives = set[str]()  # contexts that come from a kernel as int8, and stay so
    for at in (path.removesuffix("logits") for path in names.points if path.endswith("/logits")):
        products, operands = attention_products(model, at, names, grids, leaves, numbers)
        kernel = fused_attention(model, at, names, grids, multiplied) if fused and len(products) == 2 else {}
        kernel_gives |= {f"{at}context"} & multiplied if kernel else set()
        operations |= products | kernel
        rounded_there |= operands
    for one in whole:
        grid, leaf = found.weights[one.kernel], leaves[one.kernel]
        leaves[one.kernel] = grid.integers(leaf).astype(jnp.int8)
        coded = one.inputs in multiplied and one.inputs.endswith("norm_0")
        takes = "int8" if one.inputs in kernel_gives else "codes" if coded else "numbers"
        operations[one.product] = kernel_product(one.kernel, leaves[one.kernel], grid, grids[one.inputs], takes)
    rounded_there |= {path for path in multiplied if not path.endswith("norm_0")}
    leaves |= {path: grid(leaves[path]) for path, grid in found.weights.items() if leaves[path].dtype != jnp.int8}
    waiting: dict[str, Any] = {
        path: _waiting(path, grid, path in multiplied) for path, grid in grids.items() if path not in rounded_there
    }
    if "images" in grids:  # bytes lie half-way between the integers of [-1, 1]: divided as simulated, or others would come out
        waiting["images"] = Rounding(found.points["images"], jnp.bool_(True))
    return IntegerNetwork(nested(leaves), nested(operations | waiting))


def kernels(model: ModelSpec, names: Names) -> list[Kernel]:
    """All products with a kernel, gates left out."""
    found = [Kernel("embedding_product", "images", "embedding/kernel")]
    blocks = [path.removesuffix("norm_0") for path in names.points if path.endswith("norm_0") and "MAPHead" not in path]
    for block in blocks:
        found += _of_attention(f"{block}{ATTENTION}/", f"{block}norm_0", f"{block}norm_0", names)
        found += _of_mlp(f"{block}{MLP}/", f"{block}norm_1")
    last = {"gap": "pooled", "tok": "Transformer/last_norm", "map": "MAPHead_0/sum_0"}[model.pool]
    if model.pool == "map":
        found += _of_attention(f"MAPHead_0/{ATTENTION}/", None, "Transformer/last_norm", names)
        found += _of_mlp(f"MAPHead_0/{MLP}/", "MAPHead_0/norm_0")
    if model.rep_size:
        found.append(Kernel("pre_logits_product", last, "pre_logits/kernel"))
        last = "representation"
    return [*found, Kernel("head_product", last, "head/kernel")]


def _of_attention(at: str, queries: str | None, keys: str, names: Names) -> list[Kernel]:
    """queries: None where they have no grid (the probe of a MapHead, whose one row stays in floating point)."""
    taken = {"query": queries, "key": keys, "value": keys}
    context = _last_there(names, f"{at}gated", f"{at}context")
    found = [Kernel(f"{at}{name}/product", point, f"{at}{name}/kernel") for name, point in taken.items() if point]
    return [*found, Kernel(f"{at}out/product", context, f"{at}out/kernel")]


def _of_mlp(at: str, inputs: str) -> list[Kernel]:
    return [
        Kernel(f"{at}hidden_product", inputs, f"{at}Dense_0/kernel"),
        Kernel(f"{at}output_product", f"{at}hidden", f"{at}Dense_1/kernel"),
    ]


def _last_there(names: Names, *paths: str) -> str:
    return next(path for path in paths if path in names.points)


def kernel_product(path: str, integers: Int8[Array, "..."], grid: Grid, inputs: Integers, takes: str) -> KernelProduct:
    into_heads = path.split("/")[-2] in INTO_HEADS
    outputs = math.prod(integers.shape[1:]) if into_heads else integers.shape[-1]
    sums = integers.reshape(-1, outputs).sum(0, dtype=jnp.int32)
    return KernelProduct(inputs, -inputs.whole_zero * sums, takes, (inputs.scale * grid.scale).reshape(-1))


def attention_products(
    model: ModelSpec, at: str, names: Names, grids: Mapping[str, Integers], leaves: Mapping[str, Array], numbers: Numbers
) -> tuple[dict[str, AttentionProduct], set[str]]:
    """The products of one attention whose operands are quantized, by path; the paths of these operands."""
    folded = f"{at}unscaled_weights"
    q, k = (_last_there(names, f"{at}{name}_norm", f"{at}{name}") for name in "qk")
    w, v = folded if folded in grids else f"{at}weights", f"{at}v"
    found: dict[str, AttentionProduct] = {}
    if q in grids and k in grids:
        left = grids[q].times((model.width // model.heads) ** -0.5)
        found[f"{at}logits_product"] = AttentionProduct("logits", left, grids[k], left.scale * grids[k].scale)
    if w in grids and v in grids:
        left = grids[w]
        if w == folded:
            scale = length_scale(model.attention.h, model.length, leaves.get(f"{at}alpha", numbers.alpha))
            left = left.times(scale.reshape(1, -1, 1, 1))  # of heads
        across = left.scale.reshape(1, 1, -1, 1) * grids[v].scale
        found[f"{at}context_product"] = AttentionProduct("context", left, grids[v], across)
    operands = {"logits_product": {q, k}, "context_product": {w, v}}
    return found, {path for name, both in operands.items() if f"{at}{name}" in found for path in both}


def fused_attention(
    model: ModelSpec, at: str, names: Names, grids: Mapping[str, Integers], multiplied: set[str]
) -> dict[str, FusedAttention]:
    """Of an attention whose two products are of integers; none if the kernel cannot take it."""
    points = {name: f"{at}{name}" for name in ("logits", "weights", "context")}
    missing = [path for path in points.values() if path not in grids]
    if missing or "MAPHead" in at or why_not_int8(model.heads, model.width // model.heads, model.length):
        return {}
    q, k = (grids[_last_there(names, f"{at}{name}_norm", f"{at}{name}")] for name in "qk")
    z, w, context = (grids[path] for path in points.values())
    of_logits = [grid for path, grid in grids.items() if path.endswith("/logits")]  # of all blocks, which share a program
    bounded = all(bounds(float(grid.highest - grid.lowest) * float(grid.scale)) for grid in of_logits)
    gives = "int8" if points["context"] in multiplied else "numbers"
    return {f"{at}attend": FusedAttention(q, k, grids[f"{at}v"], z, w, context, bounded, gives)}


READERS = {  # of points of a block that matter for speed: the products that alone read them
    "norm_0": tuple(f"{ATTENTION}/{name}/product" for name in INTO_HEADS),
    "norm_1": (f"{MLP}/hidden_product",),
    "hidden": ("output_product",),
    "context": ("out/product",),
    "gated": ("out/product",),
}


def _only_multiplied(path: str, model: ModelSpec, products: set[str]) -> bool:
    """Whether only products of integers read a point."""
    module, slash, name = path.rpartition("/")
    gate = model.attention.gate != "none"
    if name not in READERS or (gate and name in ("norm_0", "context")) or "MAPHead" in path:
        return False
    return all(f"{module}{slash}{reader}" in products for reader in READERS[name])


def _waiting(path: str, grid: Integers, multiplied: bool) -> Coded | Stored | Passing:
    if multiplied:
        return Coded(grid)
    return Stored(grid) if path.rpartition("/")[2] in STREAM else Passing(grid)
