"""Parameters rounded to symmetric, signed grids: they need no images, and no place in the network."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.quant.estimate import largest, largest_of_least_error
from vit_attn.quant.grid import Grid, symmetric
from vit_attn.quant.names import Names
from vit_attn.spec.errors import UserError
from vit_attn.spec.quant import QuantSpec
from vit_attn.store.paths import nested, paths_of

INTO_HEADS = ("query", "key", "value")  # kernels [D, H, d]; all others end in their one axis of outputs


def weight_grids(params: Any, names: Names, quant: QuantSpec) -> dict[str, Grid]:
    """By path, of the weights that are not excluded. Raises UserError for one that is not finite."""
    leaves, grids = paths_of(params), {}
    for path, name in names.weights.items():
        if not bool(jnp.isfinite(leaves[path]).all()):
            raise UserError(f"the weights {name} have numbers that are not finite: there is nothing to quantize them to")
        if names.on(name):
            axes = summed_axes(path, leaves[path].ndim, quant.per_channel)
            grids[path] = weight_grid(leaves[path], axes, quant.weight_estimator, quant.weight_bits)
    return grids


def summed_axes(path: str, axes: int, per_channel: bool) -> tuple[int, ...]:
    """Those that share a range: all, or all but the output channels of a kernel."""
    *_, module, last = ["", *path.split("/")]
    if not per_channel or last != "kernel":
        return tuple(range(axes))
    return (0,) if module in INTO_HEADS else tuple(range(axes - 1))


@partial(jax.jit, static_argnums=(1, 2, 3))
def weight_grid(x: Float[Array, "..."], axes: tuple[int, ...], estimator: str, bits: int) -> Grid:
    return symmetric(largest(x, axes) if estimator == "min_max" else largest_of_least_error(x, axes, bits), bits)


def rounded(params: Any, grids: dict[str, Grid]) -> Any:
    """The parameters, those that have a grid rounded to it."""
    return nested({path: grids[path](x) if path in grids else x for path, x in paths_of(params).items()})
