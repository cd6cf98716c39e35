"""Where each array of a member's state lies on the mesh."""

from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from vit_attn.models.axes import logical_axes
from vit_attn.parallel.rules import Logical, partition, whole_axes
from vit_attn.spec.run import RunSpec
from vit_attn.store.paths import paths_of


def placed(spec: RunSpec, state: Any, mesh: Mesh | AbstractMesh) -> Any:
    """The abstract state, or any tree of parameters, with the shardings that config.rules give it.

    Moments lie as their parameters do; scalars on every device.
    """
    leaves = [
        jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=NamedSharding(mesh, partition(_axes(spec, name, x), x.shape, mesh.shape, spec.rules))
        )
        for name, x in paths_of(state).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def left_whole(spec: RunSpec, params: Any, mesh: Mesh | AbstractMesh) -> list[str]:
    """A line for each axis that the rules would split over devices which do not divide it."""
    arrays = paths_of(params)
    logical = {name: _axes(spec, name, x) for name, x in arrays.items()}
    return whole_axes(logical, {name: x.shape for name, x in arrays.items()}, mesh.shape, spec.rules)


def _axes(spec: RunSpec, name: str, x: Any) -> Logical:
    return logical_axes(name, len(x.shape), spec.model.attention.gate)
