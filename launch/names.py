"""Readable names of members and packs: `relu_alpha1.0_p4_seed0`, `relu_p4`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_attn.spec.run import RunSpec

# What a name always holds, under whichever key a point sets it: as an argument of get_config, or as a setting.
ALWAYS = {
    *("h", "alpha", "patch", "seed"),
    *("model.attention.h", "model.attention.alpha", "model.patch"),
}


def varied_keys(points: Sequence[dict[str, Any]]) -> list[str]:
    """The keys of a grid's points that differ between points and that `name_of` does not hold anyway."""
    keys = [key for key in dict.fromkeys(key for point in points for key in point) if key not in ALWAYS]
    return [key for key in keys if len({repr(point.get(key)) for point in points}) > 1]


def name_of(spec: RunSpec, point: dict[str, Any], varied: Sequence[str]) -> str:
    """h, alpha if it has one, patch, then the varied keys of its point, and the seed last."""
    return "_".join([*_head(spec), *_axes(point, varied), f"seed{spec.seed}"])


def pack_name_of(spec: RunSpec, points: Sequence[dict[str, Any]], varied: Sequence[str]) -> str:
    """The parts that all members of a pack share, without alpha and seed. `points`: those of the members."""
    shared = [key for key in varied if len({repr(point.get(key)) for point in points}) == 1]
    labels = _labels(varied)
    parts = [_part(labels[key], points[0][key]) for key in shared if key in points[0]]
    return "_".join([harmless(spec.model.attention.h), f"p{spec.model.patch}", *parts])


def harmless(text: str) -> str:
    """`text` as a part of a file name: "S/16" -> "S-16"."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text)


def _head(spec: RunSpec) -> list[str]:
    attention = spec.model.attention
    alpha = [] if attention.alpha is None else [f"alpha{attention.alpha}"]
    return [harmless(attention.h), *alpha, f"p{spec.model.patch}"]


def _axes(point: dict[str, Any], varied: Sequence[str]) -> list[str]:
    labels = _labels(varied)
    return [_part(labels[key], point[key]) for key in varied if key in point]


def _part(label: str, value: Any) -> str:
    if label == "base":
        return harmless(Path(value).stem)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return harmless(f"{label}{value}" if number else f"{label}-{value}")


def _labels(varied: Sequence[str]) -> dict[str, str]:
    """Each key's last part, "train.peak_lr" -> "peak_lr"; the whole key where another has the same last part."""
    last = [key.rpartition(".")[2] for key in varied]
    taken = [*last, "h", "alpha", "p", "seed"]
    return {key: short if taken.count(short) == 1 else key.replace(".", "_") for key, short in zip(varied, last, strict=True)}
