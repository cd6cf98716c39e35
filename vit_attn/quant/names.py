"""The names under which settings, tables and files know what is quantized: "encoderblock_3/attention/logits".

Activations are the points of vit_attn.models.points, weights are parameters: kernels, scales of LayerNorms, positions, CLS and
probe. Biases, LayerScale, a learned alpha, gates and what they give are never quantized (arXiv:2306.12929's code).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp

from vit_attn.models.points import COLLECTION
from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.quant import QuantSpec
from vit_attn.store.paths import paths_of

SHORT = {
    "MultiHeadDotProductAttention_0": "attention",
    "MlpBlock_0": "mlp",
    "MAPHead_0": "map_head",
    "class_logits": "head/output",
}
WEIGHTS = ("kernel", "scale", "pos_embedding", "cls", "probe")  # last parts of the paths of parameters


@dataclass(frozen=True)
class Names:
    """Path -> name, in the order in which an image meets them. `excluded`: the names that match config.exclude."""

    points: dict[str, str]
    weights: dict[str, str]
    off: frozenset[str]  # points, by name, at which config.context and config.fold_length have nothing quantized
    excluded: tuple[str, ...]

    def on(self, name: str) -> bool:
        return name not in self.off and name not in self.excluded


def names_of(model: ModelSpec, params: Any, quant: QuantSpec) -> Names:
    """Raises UserError for a pattern in config.exclude that matches nothing; it lists what there is."""
    points = {path: short(path) for path in point_paths(model, params)}
    weights = {path: short(path) for path in paths_of(params) if is_weight(path)}
    off = frozenset(_off(points.values(), quant))
    names = [name for name in (*points.values(), *weights.values()) if name not in off]
    for pattern in quant.exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"config.exclude: {pattern!r} matches no point; they are", _listed(names, model.depth))
    excluded = tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in quant.exclude))
    return Names(points, weights, off, excluded)


def point_paths(model: ModelSpec, params: Any) -> list[str]:
    """Nothing is computed."""
    found: list[str] = []

    def look(params: Any, images: Any) -> None:
        _, at = ViT(model).apply({"params": params}, images, Numbers(), mutable=[COLLECTION])
        found.extend(_paths(at[COLLECTION]))

    side = model.image_size
    jax.eval_shape(look, params, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    return found


def _paths(tree: Any, prefix: str = "") -> Iterable[str]:
    """In the order in which they were met; jax would sort them."""
    for key, value in tree.items():
        yield from _paths(value, f"{prefix}{key}/") if isinstance(value, dict) else [f"{prefix}{key}"]


def short(path: str) -> str:
    return "/".join(SHORT.get(part, part) for part in path.split("/") if part != "Transformer")


def is_weight(path: str) -> bool:
    parts = path.split("/")
    return parts[-1] in WEIGHTS and "gate" not in parts


def _off(points: Iterable[str], quant: QuantSpec) -> Iterable[str]:
    """Of two points of the same attention one is taken."""
    there = set(points)
    for name in there:
        module, _, last = name.rpartition("/")
        gated, folds = f"{module}/gated" in there, f"{module}/unscaled_weights" in there
        if gated and last == ("context" if quant.context == "after_gate" else "gated"):
            yield name
        if folds and last == ("weights" if quant.fold_length else "unscaled_weights"):
            yield name


def _listed(names: Iterable[str], depth: int) -> list[str]:
    """Names, blocks together: encoderblock_{0..11}/norm_0."""
    blocks = "encoderblock_0/", f"encoderblock_{{0..{depth - 1}}}/" if depth > 1 else "encoderblock_0/"
    listed = [name.replace(*blocks) for name in names if not name.startswith("encoderblock_") or name.startswith(blocks[0])]
    return [", ".join(listed)]
