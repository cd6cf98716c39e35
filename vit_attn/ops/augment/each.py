"""A function of one image, for all images."""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, UInt8

Images = UInt8[Array, "B Y X 3"]
Function = Callable[[Any, Any], Any]


def each(function: Function, images: Images, drawn: Any) -> Images:
    """function(image, drawn) of each image and its part of `drawn`, a tree of arrays that begin with the axis of images.

    Where `function` has branches, an image pays for its own alone if images come one after another, and for all of them if they
    come at once. CPUs and TPUs take them one after another; a GPU takes them at once: it has too little to do with one image.
    """
    at_once = jax.vmap(function)
    return jax.lax.platform_dependent(images, drawn, cuda=at_once, rocm=at_once, default=in_turn(function))


def in_turn(function: Function) -> Callable[[Images, Any], Images]:
    """A loop over the images, each device its own: the compiler would gather all images for a loop over a sharded axis."""

    def loop(images: Images, drawn: Any) -> Images:
        return jax.lax.map(lambda one: function(*one), (images, drawn))

    def on_devices(mesh: Mesh, arguments: Any, result: Any) -> tuple[Any, ...]:
        spec = result.sharding.spec
        whole_images = NamedSharding(mesh, PartitionSpec(spec[0] if spec else None))
        return mesh, loop, whole_images, jax.tree.map(lambda _: whole_images, arguments)

    def run(images: Images, drawn: Any) -> Images:
        local = custom_partitioning(jax.jit(loop))  # jit: it holds constants, which custom_partitioning refuses
        local.def_partition(partition=on_devices, sharding_rule=rule(images, *jax.tree.leaves(drawn)))
        return local(images, drawn)

    return run


def rule(images: Images, *drawn: Array) -> str:
    """The axes of the arguments and the result: all have that of images, and nothing else in common."""
    axes = [" ".join(["b", *(f"i{number}_{axis}" for axis in range(1, x.ndim))]) for number, x in enumerate((images, *drawn))]
    return f"{', '.join(axes)} -> {axes[0]}"
