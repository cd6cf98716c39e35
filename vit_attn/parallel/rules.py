"""From the logical axes of an array ("batch", "embed", ...) to axes of the mesh that it is split over."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from vit_attn.spec.mesh import RULES, RulesSpec

_rules: ContextVar[RulesSpec] = ContextVar("rules", default=RULES)
Logical = Sequence[str | None]  # an array's axes by name; None: never split


@contextmanager
def ambient(mesh: Mesh, rules: RulesSpec) -> Iterator[None]:
    """What is traced inside is traced for this mesh and these rules."""
    token = _rules.set(rules)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _rules.reset(token)


def partition(logical: Logical, shape: Sequence[int], sizes: Mapping[str, int], rules: RulesSpec) -> PartitionSpec:
    """How an array of this shape lies on a mesh of these sizes. A dimension that does not divide stays whole."""
    return PartitionSpec(*(_split(name, size, sizes, rules) for name, size in zip(logical, shape, strict=True)))


def mesh_axes(name: str, sizes: Mapping[str, int], rules: RulesSpec) -> tuple[str, ...]:
    """The axes of this mesh that a logical axis is to be split over. One of size 1 is named too: it tells a backward that
    nothing has to be summed over it."""
    return tuple(axis for axis in getattr(rules, name) if axis in sizes)


def parts(name: str) -> int:
    """Over how many devices a logical axis is split in the computation that is being traced; 1 if there is no mesh."""
    sizes = ambient_sizes()
    return math.prod(sizes[axis] for axis in mesh_axes(name, sizes, _rules.get()))


def ambient_sizes() -> dict[str, int]:
    """Devices by mesh axis, in the computation that is being traced."""
    return dict(jax.sharding.get_abstract_mesh().shape)


def ambient_partition(logical: Logical, shape: Sequence[int]) -> PartitionSpec:
    """`partition` on the mesh, and by the rules, of the computation that is being traced."""
    return partition(logical, shape, ambient_sizes(), _rules.get())


def place(x: Array, *logical: str | None) -> Array:
    """x, split as the rules say, where there is a mesh with several devices."""
    if math.prod(ambient_sizes().values()) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, ambient_partition(logical, x.shape))


def whole_axes(
    logical: Mapping[str, Logical], shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int], rules: RulesSpec
) -> list[str]:
    """A line for each logical axis that the rules would split and that stays whole in some of these arrays."""
    found: dict[tuple[str, int], list[str]] = {}
    for array, names in logical.items():
        for name, size in zip(names, shapes[array], strict=True):
            if name and mesh_axes(name, sizes, rules) and _split(name, size, sizes, rules) is None:
                found.setdefault((name, size), []).append(array)
    return [
        f"{name} ({size}) is not divisible by mesh axis {' x '.join(mesh_axes(name, sizes, rules))} "
        f"({math.prod(sizes[axis] for axis in mesh_axes(name, sizes, rules))}): it stays whole in {len(arrays)} arrays, "
        f"{arrays[0]}{' and others' if len(arrays) > 1 else ''}"
        for (name, size), arrays in found.items()
    ]


def _split(name: str | None, size: int, sizes: Mapping[str, int], rules: RulesSpec) -> Any:
    axes = mesh_axes(name, sizes, rules) if name else ()
    if not axes or size % math.prod(sizes[axis] for axis in axes):
        return None
    return axes[0] if len(axes) == 1 else axes


def batched(mesh: Mesh, rules: RulesSpec = RULES) -> NamedSharding:
    """The first axis split as `batch`."""
    axes = mesh_axes("batch", mesh.shape, rules)
    return NamedSharding(mesh, PartitionSpec(axes[0] if len(axes) == 1 else axes or None))
