"""RandAugment (arXiv:1909.13719) with the operations of TensorFlow's AutoAugment code, on images of bytes."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Int, Key, UInt8

from vit_attn.ops.augment.colour import (
    autocontrast,
    brightness,
    color,
    contrast,
    equalize,
    invert,
    posterize,
    sharpness,
    solarize,
    solarize_add,
)
from vit_attn.ops.augment.each import each
from vit_attn.ops.augment.geometry import cutout, rotate, shear_x, shear_y, translate_x, translate_y

Image = UInt8[Array, "Y X 3"]


class Drawn(NamedTuple):
    """What is random in one operation: which it is, whether its amount is negated, and where it cuts."""

    op: Int[Array, "*n"]
    negative: Bool[Array, "*n"]
    centre: Int[Array, "*n 2"]  # y, x


Op = Callable[[Image, float, Drawn], Image]


def enhance(function: Callable[[Image, float], Image]) -> Op:
    return lambda image, share, drawn: function(image, 1.8 * share + 0.1)


def either_way(function: Callable[[Image, float], Image], most: float) -> Op:
    """`function` with the amount share * most or its negative. Both are static."""

    def op(image: Image, share: float, drawn: Drawn) -> Image:
        amount = share * most
        return jax.lax.cond(drawn.negative, lambda x: function(x, -amount), lambda x: function(x, amount), image)

    return op


# share = magnitude / 10
OPS: dict[str, Op] = {
    "AutoContrast": lambda image, share, drawn: autocontrast(image),
    "Equalize": lambda image, share, drawn: equalize(image),
    "Invert": lambda image, share, drawn: invert(image),
    "Rotate": either_way(rotate, 30.0),
    "Posterize": lambda image, share, drawn: posterize(image, int(share * 4)),
    "Solarize": lambda image, share, drawn: solarize(image, int(share * 256)),
    "Color": enhance(color),
    "Contrast": enhance(contrast),
    "Brightness": enhance(brightness),
    "Sharpness": enhance(sharpness),
    "ShearX": either_way(shear_x, 0.3),
    "ShearY": either_way(shear_y, 0.3),
    "TranslateX": either_way(translate_x, 100.0),
    "TranslateY": either_way(translate_y, 100.0),
    "Cutout": lambda image, share, drawn: cutout(image, int(share * 40), drawn.centre),
    "SolarizeAdd": lambda image, share, drawn: solarize_add(image, int(share * 110)),
}


def randaugment(
    keys: Key[Array, "B"],
    images: UInt8[Array, "B Y X 3"],
    layers: int,
    magnitude: float,
    split: NamedSharding | None = None,
) -> UInt8[Array, "B Y X 3"]:
    """`layers` operations in turn, each one of the 16 with equal probability, all at `magnitude` (10 is their usual most).

    An image depends on its own key alone. split: see `each`; needed where images lie on several devices, for speed only.
    """
    drawn = jax.vmap(lambda key: jax.vmap(partial(draw, shape=images.shape[1:3]))(jax.random.split(key, layers)))(keys)
    return each(partial(applied, magnitude=magnitude), images, drawn, split) if layers else images


def draw(key: Key[Array, ""], shape: tuple[int, ...]) -> Drawn:
    op, negative, centre = jax.random.split(key, 3)
    return Drawn(
        jax.random.randint(op, (), 0, len(OPS)),
        jax.random.bernoulli(negative),
        jax.random.randint(centre, (2,), 0, jnp.asarray(shape)),
    )


def applied(image: Image, drawn: Drawn, magnitude: float) -> Image:
    """The drawn operations, one after another."""
    ops = [lambda image, one, op=op: op(image, magnitude / 10, one) for op in OPS.values()]
    return jax.lax.scan(lambda image, one: (jax.lax.switch(one.op, ops, image, one), None), image, drawn)[0]
