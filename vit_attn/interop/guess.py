"""The model that parameters belong to, from their names and shapes."""

import math
from typing import Any

from vit_attn.interop.flat import Flat
from vit_attn.spec.errors import UserError
from vit_attn.spec.variants import SIZES

BLOCK = "Transformer/encoderblock_"
ATTENTION = f"{BLOCK}0/MultiHeadDotProductAttention_0"
LAYER_SCALE = 1e-5  # what it started from is not in a file, and changes nothing


def model_values(flat: Flat, source: str) -> dict[str, Any]:
    """config.model for parameters by our paths, in softmax. UserError where they belong to no ViT of one patch and depth.

    Without learned positions nothing says how large the images are: the default stays.
    """
    _check(flat, source)
    patch, _, _, width = flat["embedding/kernel"].shape
    sizes = {
        "width": width,
        "depth": 1 + max(int(name.removeprefix(BLOCK).partition("/")[0]) for name in flat if name.startswith(BLOCK)),
        "mlp_dim": flat[f"{BLOCK}0/MlpBlock_0/Dense_0/kernel"].shape[1],
        "heads": flat[f"{ATTENTION}/query/kernel"].shape[1],
    }
    agreeing = {name: sum(size._asdict()[key] == value for key, value in sizes.items()) for name, size in SIZES.items()}
    name = max(agreeing, key=lambda name: agreeing[name])  # the closest one
    positions = flat.get("pos_embedding")
    size = {} if positions is None else {"image_size": patch * _side(positions.shape[1], source)}
    return {
        "variant": f"{name}/{patch}",
        **sizes,
        **size,
        "patch": patch,
        "num_classes": flat["head/kernel"].shape[1],
        "posemb": "sincos2d" if positions is None else "learn",
        "pool": "tok" if "cls" in flat else "map" if "MAPHead_0/probe" in flat else "gap",
        "rep_size": "pre_logits/kernel" in flat,
        "patch_norm": "patches" if "patch_norm/scale" in flat else "none",
        "layer_scale": LAYER_SCALE if f"{BLOCK}0/layer_scale_0" in flat else None,
        "attention": _attention_values(flat),
    }


def _attention_values(flat: Flat) -> dict[str, Any]:
    scale, bias = (f"{ATTENTION}/query_ln/{kind}" in flat for kind in ("scale", "bias"))
    norm = {"qk_norm": "head", "qk_norm_scale": scale, "qk_norm_bias": bias} if scale or bias else {"qk_norm": "none"}
    return {"h": "softmax", **norm}


def _check(flat: Flat, source: str) -> None:
    needed = {
        "embedding/kernel": 4,
        "head/kernel": 2,
        f"{BLOCK}0/MlpBlock_0/Dense_0/kernel": 2,
        f"{ATTENTION}/query/kernel": 3,
    }
    for name, axes in needed.items():
        if name not in flat:
            raise UserError(f"{source} does not say what its model is: {name} is missing")
        if flat[name].ndim != axes:
            raise UserError(f"{source}: {name} has {flat[name].ndim} axes, and {axes} are needed")
    rows, columns, channels, _ = flat["embedding/kernel"].shape
    if rows != columns or channels != 3:
        raise UserError(f"{source}: patches of {rows} x {columns} x {channels}; here they are squares of RGB pixels")


def _side(positions: int, source: str) -> int:
    side = math.isqrt(positions)
    if side**2 != positions:
        raise UserError(f"{source} has {positions} positions, which is not the square of a number of patches")
    return side
