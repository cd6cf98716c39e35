"""The device mesh, and batches on it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vit_attn.parallel.rules import ambient_partition, batched, mesh_axes, parts, split
from vit_attn.spec.errors import UserError
from vit_attn.spec.mesh import AXES, RULES, MeshSpec, RulesSpec
from vit_attn.spec.run import RunSpec


def make_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or the given ones, on `data`, `fsdp`, `seq` and `model`. Raises UserError if the sizes do not fit them."""
    devices = jax.devices() if devices is None else devices
    sizes = axis_sizes(spec, len(devices))
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=devices)


def axis_sizes(spec: MeshSpec, devices: int) -> dict[str, int]:
    """{"data": 4, "fsdp": 1, "seq": 2, "model": 1}, of so many devices. Raises UserError if the sizes do not fit them."""
    sizes = {axis: getattr(spec, axis) for axis in AXES}
    known = math.prod(size for size in sizes.values() if size > 0)
    found = {name: devices // known if size == -1 else size for name, size in sizes.items()}
    if math.prod(found.values()) != devices:
        product = " x ".join(f"config.mesh.{name}={size}" for name, size in sizes.items())
        raise UserError(
            f"{product} does not make {devices} devices: the sizes must multiply to that, and one may be -1 "
            "(the devices that are left)"
        )
    return found


def batch_split() -> NamedSharding | None:
    """How a batch lies on the mesh that the current computation is traced for; None where it is not split."""
    if parts("batch") == 1:
        return None
    return NamedSharding(jax.sharding.get_abstract_mesh(), ambient_partition(("batch",), (parts("batch"),)))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def check_batches(spec: RunSpec, mesh: Mesh | AbstractMesh) -> None:
    """Raises UserError for a batch, or a part of one, that the devices cannot share evenly."""
    axes = [axis for axis in mesh_axes("batch", mesh.shape, spec.rules) if mesh.shape[axis] > 1]
    n, parts = split(mesh.shape, spec.rules)["batch"], spec.train.accumulate
    for key, b, part in (("train", spec.train.batch_images, parts), ("eval", spec.eval.batch_images, 1)):
        unit = n * part
        if b % unit:
            nearest = ", ".join(str(size) for size in (b // unit * unit, -(-b // unit) * unit) if size)
            where = " x ".join(f"'{axis}'" for axis in axes)
            of_parts = f", config.train.accumulate={part} parts of a batch one after the other" if part > 1 else ""
            raise UserError(
                f"config.{key}.batch_images={b} is not divisible by the {n} devices of mesh axis {where}{of_parts}; "
                f"nearest: {nearest}"
            )


def local_rows(mesh: Mesh, batch_images: int, rules: RulesSpec = RULES) -> list[int]:
    """The rows of a batch that lie on devices of this process, in order."""
    shares = batched(mesh, rules).addressable_devices_indices_map((batch_images,)).values()
    return sorted({row for share in shares if share for row in range(*share[0].indices(batch_images))})


def to_global(mesh: Mesh, batch: Any, batch_images: int, rules: RulesSpec = RULES) -> Any:
    """Numpy arrays with this process's rows of a batch -> global arrays, split over the devices."""
    sharding = batched(mesh, rules)
    return {key: to_devices(sharding, value, (batch_images, *value.shape[1:])) for key, value in batch.items()}


def to_devices(sharding: NamedSharding, own: Any, shape: tuple[int, ...]) -> jax.Array:
    """The global array of this shape of which this process has its `own` part. A transfer that is meant: never refused."""
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_process_local_data(sharding, np.asarray(own), shape)
