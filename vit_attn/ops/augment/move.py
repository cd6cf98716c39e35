"""Pixels moved as a static map says, by the means that a platform is good at. The same pixels come out.

CPU and GPU read each pixel at its address. A TPU takes more than two cycles for each pixel so read, but moves whole rows fast:
there, an affine map of determinant 1 is at most three shears along x, y, x (for rotations: Paeth, Graphics Interface 1986, "A
fast algorithm for general raster rotation"). Shears by whole pixels that wrap around lose no pixel, and rounding puts each at
most a few pixels beside where it belongs, always the same number at the same place: a last step fetches it from there.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

Row = tuple[float, float, float]  # (a, b, c): a x + b y + c
SUBLANES, LANES = 8, 128  # rows, and pixels of a row, that a TPU handles at once
ASIDE = 3  # pixels, at most, that three rounded shears may put one beside its place


class Map(NamedTuple):
    """Where each pixel (y, x) comes from: the nearest to (y row, x row), as TensorFlow's ImageProjectiveTransformV3."""

    shape: tuple[int, int]
    x: Row
    y: Row


class Plan(NamedTuple):
    """A map as shears of a canvas and a last step. Static."""

    shape: tuple[int, int]  # of the canvas
    shears: list[tuple[int, np.ndarray]]  # (axis, how far each row or column is rolled back)
    steps: list[tuple[int, int]]  # (y, x): what a pixel may be away from its place
    choice: np.ndarray  # [Y X]: which of the steps; len(steps) where nothing comes


def moved(image: UInt8[Array, "Y X 3"], way: Map, fill: int) -> UInt8[Array, "Y X 3"]:
    """The image, with `fill` where the map leads outside."""
    by_platform = {"tpu": partial(by_shears, way=way, fill=fill), "default": partial(by_address, way=way, fill=fill)}
    return jax.lax.platform_dependent(image, **by_platform)


def by_address(image: UInt8[Array, "Y X 3"], way: Map, fill: int) -> UInt8[Array, "Y X 3"]:
    places = sources(way)
    pixels = image.reshape(-1, 3).at[np.maximum(places, 0)].get(mode="promise_in_bounds")
    return jnp.where((places >= 0)[..., None], pixels, jnp.uint8(fill))


def by_shears(image: UInt8[Array, "Y X 3"], way: Map, fill: int) -> UInt8[Array, "Y X 3"]:
    plan = planned(way)
    if plan is None:
        return by_address(image, way, fill)
    canvas = jnp.pad(packed(image), [(0, whole - size) for whole, size in zip(plan.shape, way.shape, strict=True)])
    for axis, amounts in plan.shears:
        canvas = sheared(canvas, axis, amounts)
    result = jnp.full(way.shape, fill * 0x010101, jnp.int32)
    for number, step in enumerate(plan.steps):
        fetched = jnp.roll(canvas, (-step[0], -step[1]), (0, 1))[: way.shape[0], : way.shape[1]]
        result = jnp.where(plan.choice == number, fetched, result)
    return unpacked(result)


def sheared(canvas: Int[Array, "Y W"], axis: int, amounts: np.ndarray) -> Int[Array, "Y W"]:
    """Each row (axis 1) or column (axis 0) rolled back by its amount, one binary digit of the amounts at a time."""
    for digit in range(int(amounts.max()).bit_length()):
        chosen = np.expand_dims((amounts >> digit) & 1 == 1, axis)
        canvas = jnp.where(chosen, jnp.roll(canvas, -(2**digit), axis), canvas)
    return canvas


def packed(image: UInt8[Array, "Y X 3"]) -> Int[Array, "Y X"]:
    """A pixel as one number, so that it moves as one."""
    x = image.astype(jnp.int32)
    return x[..., 0] | x[..., 1] << 8 | x[..., 2] << 16


def unpacked(pixels: Int[Array, "Y X"]) -> UInt8[Array, "Y X 3"]:
    return jnp.stack([pixels >> shift & 255 for shift in (0, 8, 16)], -1).astype(jnp.uint8)


@cache
def sources(way: Map) -> np.ndarray:
    """[Y X]: y' X + x' of the pixel that comes to each place, -1 if none does. In float32, as TensorFlow computes it."""
    y, x = np.indices(way.shape, np.float32)
    found = [half_away(np.float32(a) * x + np.float32(b) * y + np.float32(c)) for a, b, c in (way.y, way.x)]
    inside = [(at >= 0) & (at < size) for at, size in zip(found, way.shape, strict=True)]
    return np.where(inside[0] & inside[1], found[0] * way.shape[1] + found[1], -1).astype(np.int32)


def half_away(x: np.ndarray) -> np.ndarray:
    """Rounded to the nearest whole number, halves away from 0."""
    return (np.sign(x) * np.floor(np.abs(x.astype(np.float64)) + 0.5)).astype(np.int64)


@cache
def planned(way: Map) -> Plan | None:
    """On the narrowest canvas on which the shears bring every pixel close to its place; None if that is none of a few."""
    height = -(-(way.shape[0] + 2 * ASIDE) // SUBLANES) * SUBLANES
    first = -(-way.shape[1] // LANES)
    plans = (planned_on(way, (height, LANES * lanes)) for lanes in range(first, 3 * first + 2))
    return next((plan for plan in plans if plan is not None), None)


def planned_on(way: Map, shape: tuple[int, int]) -> Plan | None:
    """The plan on a canvas of that shape; None if pixels that are needed wrap around it between two shears."""
    shears, places = shears_of(way, shape), np.arange(shape[0] * shape[1]).reshape(shape)
    for axis, amounts in shears:
        places = rolled(places, axis, amounts)
    now_at = np.argsort(places, axis=None)  # of each pixel of the canvas
    source, (y, x) = sources(way), np.nonzero(sources(way) >= 0)
    at = now_at[source[y, x] // way.shape[1] * shape[1] + source[y, x] % way.shape[1]]
    away = np.stack([(at // shape[1] - y) % shape[0], (at % shape[1] - x) % shape[1]], -1)
    steps, choice = np.unique(away, axis=0, return_inverse=True)
    if any(spread(steps[:, axis], shape[axis]) > 2 * ASIDE for axis in (0, 1)):
        return None
    whole = np.full(way.shape, len(steps), np.int32)
    whole[y, x] = np.ravel(choice)
    return Plan(shape, shears, [(int(down), int(right)) for down, right in steps], whole)


def spread(values: np.ndarray, period: int) -> int:
    """How far apart values on a ring are: the ring less its longest empty piece."""
    ring = np.unique(values)
    return period - int(np.diff(ring, append=ring[0] + period).max()) if len(ring) > 1 else 0


def shears_of(way: Map, shape: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
    """[a b; c d] = [1 p; 0 1] [1 0; c 1] [1 q; 0 1], each about the middle, in whole pixels that are 0 at least."""
    (a, b, _), (c, d, _) = way.x, way.y
    p, q = ((a - 1) / c, (d - 1) / c) if c else (b, 0.0)
    shears, moved_by = [], [0, 0]  # what the pixels have been moved by, because amounts are not negative
    for axis, slope in ((1, p), (0, c), (1, q)):
        across = 1 - axis
        amounts = half_away(slope * from_middle(way.shape[across], shape[across], moved_by[across]))
        if amounts.any():
            shears.append((axis, amounts - amounts.min()))
            moved_by[axis] += int(amounts.min())
    return shears


def from_middle(size: int, period: int, moved_by: int) -> np.ndarray:
    """Of each place on a ring: how far from the middle of the image the pixel was that is there after moving."""
    first = (size - period) // 2
    return (np.arange(period) - moved_by - first) % period + first - (size - 1) / 2


def rolled(canvas: np.ndarray, axis: int, amounts: np.ndarray) -> np.ndarray:
    """`sheared`, of numpy."""
    places = np.expand_dims(amounts, axis) + np.expand_dims(np.arange(canvas.shape[axis]), 1 - axis)
    return np.take_along_axis(canvas, places % canvas.shape[axis], axis)
