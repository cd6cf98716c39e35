"""Where each array of a member's state lies on the mesh."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from vit_attn.models.axes import logical_axes
from vit_attn.parallel.rules import Logical, partition, whole_axes
from vit_attn.spec.run import RunSpec


def placed(spec: RunSpec, state: Any, mesh: Mesh) -> Any:
    """The abstract state, or any tree of parameters, with the shardings that config.rules give it.

    Moments lie as their parameters do; scalars on every device.
    """

    def one(path: Any, x: Any) -> jax.ShapeDtypeStruct:
        spread = partition(_axes(spec, path, x), x.shape, mesh.shape, spec.rules)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spread))

    return jax.tree_util.tree_map_with_path(one, state)


def left_whole(spec: RunSpec, params: Any, mesh: Mesh) -> list[str]:
    """A line for each axis that the rules would split over devices which do not divide it."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    logical = {"/".join(_names(path)): _axes(spec, path, x) for path, x in leaves}
    shapes = {"/".join(_names(path)): x.shape for path, x in leaves}
    return whole_axes(logical, shapes, mesh.shape, spec.rules)


def _axes(spec: RunSpec, path: Any, x: Any) -> Logical:
    return logical_axes(_names(path), len(x.shape), spec.model.attention.gate)


def _names(path: Any) -> list[str]:
    """The keys of dictionaries alone: a parameter's path, also inside the optimizer's tuples."""
    return [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
