"""A function of one image, for all images."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, UInt8

Images = UInt8[Array, "B Y X 3"]


def each(function: Callable[[Any, Any], Any], images: Images, drawn: Any, split: NamedSharding | None = None) -> Images:
    """function(image, drawn) of each image and its part of `drawn`, a tree of arrays that begin with the axis of images.

    Where `function` has branches, an image pays for its own alone if images come one after another, and for all of them if they
    come at once. CPUs and TPUs take them one after another; a GPU takes them at once: it has too little to do with one image.

    split: how the images lie on devices, so that each device goes through its own. Without it the result is the same, but of
    images on several devices the compiler gathers all on each.
    """

    def in_turn(images: Images, drawn: Any) -> Images:
        return jax.lax.map(lambda one: function(*one), (images, drawn))

    def own(images: Images, drawn: Any) -> Images:
        at_once = jax.vmap(function)
        return jax.lax.platform_dependent(images, drawn, cuda=at_once, rocm=at_once, default=in_turn)

    if split is None:
        return own(images, drawn)
    by_image = PartitionSpec(split.spec[0])
    return jax.shard_map(own, mesh=split.mesh, in_specs=by_image, out_specs=by_image, check_vma=False)(images, drawn)
