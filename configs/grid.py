"""The language of sweeps: lists of points, made and combined by functions that return lists of points.

A point is a dictionary from axes to values. An axis is an argument of the base config (`h`), a setting with its dots
("train.peak_lr", given as product(**{"train.peak_lr": [...]})), or "base", a config file of the point's own.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

Point = dict[str, Any]


def product(**axes: Iterable[Any]) -> list[Point]:
    """Every combination of the axes, the last one fastest: product(h=["relu"], alpha=[0, 1]) has two points."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def zipped(**axes: Iterable[Any]) -> list[Point]:
    """The axes side by side: zipped(gamma=[0, -0.1], zeta=[1.1, 1]) has two points. Raises ValueError if one is longer."""
    return [dict(zip(axes, values, strict=True)) for values in zip(*axes.values(), strict=True)]


def cross(*grids: Iterable[Point]) -> list[Point]:
    """Every point of the first with every point of the second, and so on, the last one fastest. Later values win."""
    return [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*grids)]


def constant(points: Iterable[Point], **values: Any) -> list[Point]:
    """The points, each with these values too."""
    return [{**point, **values} for point in points]


def only(points: Iterable[Point], wanted: Callable[[Point], bool]) -> list[Point]:
    """The points for which `wanted(point)` is true."""
    return [point for point in points if wanted(point)]


def seeds(points: Iterable[Point], number: int) -> list[Point]:
    """Every point once a seed 0 ... number - 1: other initial weights, the same batches. Raises ValueError below 1."""
    if number < 1:
        raise ValueError(f"seeds={number} must be at least 1")
    return cross(points, product(seed=range(number)))
