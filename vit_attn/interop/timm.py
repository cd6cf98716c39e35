"""Parameters under the names of timm's VisionTransformer (vit_*_patch*): what it computes as this framework does.

What differs all the same: timm's GELU is exact and ours is the tanh approximation (give timm act_layer="gelu_tanh"); timm
means global_pool="avg" to come with fc_norm=False here; its images are normalised as its own configs say, ours to [-1, 1].
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from vit_attn.interop.big_vision import split_positions
from vit_attn.interop.flat import Flat, listed
from vit_attn.models.posemb import sincos2d
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.variants import SIZES

ATTENTION = "MultiHeadDotProductAttention_0"
# (our name, timm's); kernels are transposed
_DENSE = {"MlpBlock_0/Dense_0": "mlp.fc1", "MlpBlock_0/Dense_1": "mlp.fc2"}
_NORMS = {
    "LayerNorm_0": "norm1",
    "LayerNorm_1": "norm2",
    f"{ATTENTION}/query_ln": "attn.q_norm",
    f"{ATTENTION}/key_ln": "attn.k_norm",
}
_FACTORS = {"layer_scale_0": "ls1.gamma", "layer_scale_1": "ls2.gamma"}
_PATCH_NORM = "patch_embed.norm"  # of embed_norm_layer
_STRANGE = {
    "fc_norm": "timm's LayerNorm behind the mean; here it is before (timm: fc_norm=False)",
    "norm_pre": "a LayerNorm in place of the patches' bias",
    "attn_pool": "timm's attention pooling",
    "reg_token": "register tokens",
    "dist_token": "a distillation token",
}


def to_timm(model: ModelSpec, flat: Flat, source: str) -> Flat:
    """Parameters by our paths -> timm's names. UserError, which names them, for what timm's ViT does not compute."""
    _refuse(model, source)
    found: Flat = {
        "patch_embed.proj.weight": flat["embedding/kernel"].transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": flat["embedding/bias"],
        "pos_embed": _positions(model, flat),
        "head.weight": flat["head/kernel"].T,
        "head.bias": flat["head/bias"],
        **_norm(flat, "Transformer/encoder_norm", "norm"),
    }
    if model.pool == "tok":
        found["cls_token"] = flat["cls"]
    if model.patch_norm != "none":
        found |= _norm(flat, "patch_norm", _PATCH_NORM)
    for index in range(model.depth):
        prefix = f"Transformer/encoderblock_{index}/"
        block = {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}
        found |= {f"blocks.{index}.{name}": value for name, value in _block(model, block).items()}
    return found


def arguments(model: ModelSpec) -> dict[str, Any]:
    """Of timm's VisionTransformer, for what `to_timm` gives: those that its defaults do not have, or may not."""
    found: dict[str, Any] = {
        "img_size": model.image_size,
        "patch_size": model.patch,
        "embed_dim": model.width,
        "depth": model.depth,
        "num_heads": model.heads,
        "mlp_ratio": model.mlp_dim / model.width,
        "num_classes": model.num_classes,
        "class_token": model.pool == "tok",
        "global_pool": "token" if model.pool == "tok" else "avg",
        "fc_norm": False,
        "act_layer": "gelu_tanh",
    }
    found |= {"qk_norm": True} if model.attention.qk_norm == "head" else {}
    found |= {} if model.layer_scale is None else {"init_values": model.layer_scale}
    return found | ({} if model.patch_norm == "none" else {"embed_norm_layer": "layernorm"})


def from_timm(arrays: Flat, heads: int | None, source: str) -> Flat:
    """timm's names -> parameters by our paths. `heads`: None: read off the width or the qk-layernorm.

    UserError for a file that lacks some of them, or has others.
    """
    rest = dict(arrays)
    indices = {int(found[1]) for name in arrays if (found := re.match(r"blocks\.(\d+)\.", name))}
    if "patch_embed.proj.weight" not in rest or not indices:
        raise UserError(f"{source} holds no ViT of timm's: it has no patch_embed.proj.weight or no blocks.0")
    width = rest["patch_embed.proj.weight"].shape[0]
    heads = heads or _heads(rest, width, source)
    if width % heads:
        raise UserError(f"{source}: config.model.heads={heads} does not divide the width of {width}")
    missing = [name for name in _required(indices) if name not in rest]
    if missing:
        raise UserError(f"{source} lacks {listed(missing)}{_explained(rest)}")
    _check_square(rest, indices, width, source)
    flat = {
        "embedding/kernel": rest.pop("patch_embed.proj.weight").transpose(2, 3, 1, 0),
        "embedding/bias": rest.pop("patch_embed.proj.bias"),
        "head/kernel": rest.pop("head.weight").T,
        "head/bias": rest.pop("head.bias"),
        **_norm_back(rest, "norm", "Transformer/encoder_norm"),
        **_norm_back(rest, _PATCH_NORM, "patch_norm"),
        **_tokens_back(rest),
    }
    for index in sorted(indices):
        prefix = f"blocks.{index}."
        block = {name.removeprefix(prefix): rest.pop(name) for name in list(rest) if name.startswith(prefix)}
        flat |= {f"Transformer/encoderblock_{index}/{name}": x for name, x in _block_back(block, heads).items()}
        rest |= {f"{prefix}{name}": value for name, value in block.items()}
    if rest:
        raise UserError(f"{source} has what this framework's ViT has not: {listed(rest)}{_explained(rest)}")
    return {name: np.ascontiguousarray(value) for name, value in flat.items()}


def _refuse(model: ModelSpec, source: str) -> None:
    a = model.attention
    beyond = {
        f"h={a.h!r}": a.h != "softmax",
        f"gate={a.gate!r}": a.gate != "none",
        f"qk_norm={a.qk_norm!r}": a.qk_norm == "width",
        f"pool={model.pool!r}": model.pool == "map",
        f"rep_size={model.rep_size}": model.rep_size,
        f"patch_norm={model.patch_norm!r}": model.patch_norm == "tokens",  # its norm_pre comes without the patches' bias
    }
    if named := [name for name, there in beyond.items() if there]:
        raise UserError(f"{source}: timm's ViT has no {', '.join(named)}; .stablehlo takes every model")


def _positions(model: ModelSpec, flat: Flat) -> np.ndarray:
    """[1, N, D], or [1, 1 + N, D] with zeros for the CLS token, whose position is part of the token here."""
    side = model.image_size // model.patch
    fixed = model.posemb == "sincos2d"
    positions = np.asarray(sincos2d(side, side, model.width)) if fixed else flat["pos_embedding"]
    return np.pad(positions, ((0, 0), (1, 0), (0, 0))) if model.pool == "tok" else positions


def _tokens_back(rest: Flat) -> Flat:
    """The CLS token, if there is one, and positions. As many positions as a square has leave the token out."""
    positions, cls = rest.pop("pos_embed"), rest.pop("cls_token", None)
    if cls is None or round(positions.shape[1] ** 0.5) ** 2 == positions.shape[1]:
        return {"pos_embedding": positions} | ({} if cls is None else {"cls": cls})
    return split_positions(cls, positions)


def _block(model: ModelSpec, block: Flat) -> Flat:
    found: Flat = {}
    for ours, theirs in _NORMS.items():
        if ours.startswith(ATTENTION) and model.attention.qk_norm == "none":
            continue
        size = model.width // model.heads  # of a qk-layernorm, whose scale or bias we may not have and timm always has
        neutral = {f"{ours}/scale": np.ones(size, np.float32), f"{ours}/bias": np.zeros(size, np.float32)}
        found |= _norm({**neutral, **block}, ours, theirs)
    for ours, theirs in _DENSE.items():
        found |= {f"{theirs}.weight": block[f"{ours}/kernel"].T, f"{theirs}.bias": block[f"{ours}/bias"]}
    found |= {theirs: block[ours] for ours, theirs in _FACTORS.items() if ours in block}
    width, parts = model.width, ("query", "key", "value")
    kernels = [block[f"{ATTENTION}/{part}/kernel"].reshape(width, width).T for part in parts]
    return found | {
        "attn.qkv.weight": np.concatenate(kernels),
        "attn.qkv.bias": np.concatenate([block[f"{ATTENTION}/{part}/bias"].reshape(width) for part in parts]),
        "attn.proj.weight": block[f"{ATTENTION}/out/kernel"].reshape(width, width).T,
        "attn.proj.bias": block[f"{ATTENTION}/out/bias"],
    }


def _block_back(block: Flat, heads: int) -> Flat:
    """Takes what it knows out of `block`."""
    flat: Flat = {}
    for ours, theirs in _NORMS.items():
        flat |= _norm_back(block, theirs, ours)
    for ours, theirs in _DENSE.items():
        flat |= {f"{ours}/kernel": block.pop(f"{theirs}.weight").T, f"{ours}/bias": block.pop(f"{theirs}.bias")}
    flat |= {ours: block.pop(theirs) for ours, theirs in _FACTORS.items() if theirs in block}
    kernel, bias = block.pop("attn.qkv.weight"), block.pop("attn.qkv.bias")
    width = kernel.shape[1]
    for part, weight, offset in zip(("query", "key", "value"), np.split(kernel, 3), np.split(bias, 3), strict=True):
        flat[f"{ATTENTION}/{part}/kernel"] = weight.T.reshape(width, heads, width // heads)
        flat[f"{ATTENTION}/{part}/bias"] = offset.reshape(heads, width // heads)
    flat[f"{ATTENTION}/out/kernel"] = block.pop("attn.proj.weight").T.reshape(heads, width // heads, width)
    flat[f"{ATTENTION}/out/bias"] = block.pop("attn.proj.bias")
    return flat


def _norm(flat: Flat, ours: str, theirs: str) -> Flat:
    return {f"{theirs}.weight": flat[f"{ours}/scale"], f"{theirs}.bias": flat[f"{ours}/bias"]}


def _norm_back(rest: Flat, theirs: str, ours: str) -> Flat:
    """Takes scale and bias out of `rest`, if they are there."""
    names = {f"{theirs}.weight": f"{ours}/scale", f"{theirs}.bias": f"{ours}/bias"}
    return {new: rest.pop(old) for old, new in names.items() if old in rest}


def _heads(rest: Flat, width: int, source: str) -> int:
    if "blocks.0.attn.q_norm.weight" in rest:
        return width // len(rest["blocks.0.attn.q_norm.weight"])
    known = next((size.heads for size in SIZES.values() if size.width == width), None)
    if known is None:
        raise UserError(f"{source} does not say how many heads a width of {width} has: give --config.model.heads=N")
    return known


def _required(indices: Iterable[int]) -> list[str]:
    """Names that every such ViT has."""
    outer = ["patch_embed.proj", "norm", "head"]
    inner = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    blocks = [f"blocks.{index}.{name}" for index in range(max(indices) + 1) for name in inner]
    return ["pos_embed", *(f"{name}.{kind}" for name in (*outer, *blocks) for kind in ("weight", "bias"))]


def _check_square(rest: Flat, indices: Iterable[int], width: int, source: str) -> None:
    for index in indices:
        for name, rows in (("attn.qkv.weight", 3 * width), ("attn.qkv.bias", 3 * width), ("attn.proj.weight", width)):
            shape = rest[f"blocks.{index}.{name}"].shape
            wanted = (rows, width) if name.endswith("weight") else (rows,)
            if shape != wanted:
                raise UserError(f"{source}: blocks.{index}.{name} is {list(shape)}, and {list(wanted)} fits a width of {width}")


def _explained(rest: Flat) -> str:
    return "".join(f"; {key}: {why}" for key, why in _STRANGE.items() if any(name.startswith(key) for name in rest))
