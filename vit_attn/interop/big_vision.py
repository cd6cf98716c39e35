"""Parameters in .npz files as big_vision writes them, and as the releases before it did (ViT, AugReg).

big_vision's names are ours behind "params/". Older files differ in what `_old_names` and `_without_cls_position` undo
(big_vision/models/vit.py, fix_old_checkpoints): submodules are numbered through, whatever their class; the position
embedding lies in the encoder, and covers the CLS token too; the pooling head is not a module of its own.
"""

import math
import re

import numpy as np

from vit_attn.interop.flat import Flat
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec

PREFIXES = ("params/", "opt/target/")  # in front of parameters: today's checkpoints, and those of flax's old optimizers
_NUMBERED = re.compile(r"(MultiHeadDotProductAttention|LayerNorm|MlpBlock|Dense)_(\d+)")
_POSITIONS = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")
_POOLING = re.compile(r"(probe|MlpBlock_0|MultiHeadDotProductAttention_0|LayerNorm_0)(/|$)")


def from_big_vision(arrays: Flat, source: str) -> Flat:
    """What a file holds -> parameters by our paths. UserError if it holds no ViT."""
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in arrays)), "")
    flat = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    if "embedding/kernel" not in flat or not any(name.startswith("Transformer/encoderblock") for name in flat):
        raise UserError(f"{source} holds no ViT of big_vision's: it has no embedding/kernel or no Transformer/encoderblock_0")
    return _without_cls_position(_old_names(_one_by_one(flat)))


def to_big_vision(model: ModelSpec, flat: Flat, source: str) -> Flat:
    """Parameters by our paths -> what big_vision loads. UserError for a model that its ViT does not compute."""
    a = model.attention
    beyond = {
        f"h={a.h!r}": a.h != "softmax",
        f"alpha_learned={a.alpha_learned!r}": a.alpha_learned != "none",
        f"qk_norm={a.qk_norm!r}": a.qk_norm != "none",
        f"gate={a.gate!r}": a.gate != "none",
        f"patch_norm={model.patch_norm!r}": model.patch_norm != "none",
        f"layer_scale={model.layer_scale}": model.layer_scale is not None,
    }
    if named := [name for name, there in beyond.items() if there]:
        raise UserError(f"{source}: big_vision's ViT has no {', '.join(named)}; .stablehlo takes every model")
    return {f"params/{name}": value for name, value in flat.items()}


def _one_by_one(flat: Flat) -> Flat:
    """Blocks that a scan has stacked, Transformer/encoderblock/... [depth, ...], each under its own name."""
    found: Flat = {}
    for name, value in flat.items():
        stacked = name.partition("Transformer/encoderblock/")[2]
        found.update({f"Transformer/encoderblock_{i}/{stacked}": x for i, x in enumerate(value)} if stacked else {name: value})
    return found


def _old_names(flat: Flat) -> Flat:
    """Submodules numbered class by class, positions outside the encoder, the pooling head in its own module."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for name in flat:
        for found in _NUMBERED.finditer(name):
            numbers.setdefault((name[: found.start()], found[1]), set()).add(int(found[2]))

    def renumbered(name: str) -> str:
        def new(found: re.Match[str]) -> str:
            return f"{found[1]}_{sorted(numbers[name[: found.start()], found[1]]).index(int(found[2]))}"

        return _NUMBERED.sub(new, name)

    flat = {"pos_embedding" if name in _POSITIONS else renumbered(name): value for name, value in flat.items()}
    inlined = "probe" in flat
    return {f"MAPHead_0/{name}" if inlined and _POOLING.match(name) else name: value for name, value in flat.items()}


def _without_cls_position(flat: Flat) -> Flat:
    """Positions of the patches alone. That of the CLS token, which came first, is added to the token."""
    positions = flat.get("pos_embedding")
    if positions is None or math.isqrt(positions.shape[1] - 1) ** 2 != positions.shape[1] - 1:
        return flat
    return {**flat, **split_positions(flat.get("cls"), positions)}


def split_positions(cls: np.ndarray | None, positions: np.ndarray) -> Flat:
    """(CLS token [1, 1, D] or None, positions [1, 1 + N, D]) -> the token with its position, and the positions of patches."""
    first, rest = positions[:, :1], positions[:, 1:]
    token = {} if cls is None else {"cls": np.where(first == 0, cls, cls + first)}  # where: -0 stays -0
    return {**token, "pos_embedding": rest}
