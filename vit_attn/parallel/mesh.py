"""The device mesh, and where arrays lie on it: batches over `data`, an image's tokens over `seq`, all else on every device."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from vit_attn.spec.errors import UserError
from vit_attn.spec.run import MeshSpec


def make_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or the given ones, on the axes `data` and `seq`. Raises UserError if the sizes do not fit them."""
    devices = jax.devices() if devices is None else devices
    sizes = axis_sizes(spec, len(devices))
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=devices)


def axis_sizes(spec: MeshSpec, devices: int) -> dict[str, int]:
    """{"data": 4, "seq": 2}, of so many devices. Raises UserError if the sizes do not fit them."""
    sizes = {"data": spec.data, "seq": spec.seq}
    known = math.prod(size for size in sizes.values() if size > 0)
    found = {name: devices // known if size == -1 else size for name, size in sizes.items()}
    if math.prod(found.values()) != devices:
        product = " x ".join(f"config.mesh.{name}={size}" for name, size in sizes.items())
        raise UserError(
            f"{product} does not make {devices} devices: the sizes must multiply to that, and one may be -1 "
            "(the devices that are left)"
        )
    return found


def axis_size(name: str) -> int:
    """Of the mesh that the current computation is traced for; 1 if there is none."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(name, 1)


def spread_tokens(x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """Tokens over `seq` and images over `data`, where there is a mesh that has them."""
    if axis_size("seq") == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec("data", "seq"))


def batch_split() -> NamedSharding | None:
    """How a batch lies on the mesh that the current computation is traced for; None on one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return NamedSharding(mesh, PartitionSpec("data")) if axis_size("data") > 1 else None


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The first axis over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_divides(mesh: Mesh | AbstractMesh, **batch_images: int) -> None:
    """Raises UserError for a batch size (given by the name of its setting) that the devices cannot share evenly."""
    n = mesh.shape["data"]
    for key, b in batch_images.items():
        if b % n:
            nearest = ", ".join(str(size) for size in (b // n * n, -(-b // n) * n) if size)
            name = f"config.{key.replace('__', '.')}"
            raise UserError(f"{name}={b} is not divisible by the {n} devices of mesh axis 'data'; nearest: {nearest}")


def local_rows(mesh: Mesh, batch_images: int) -> list[int]:
    """The rows of a batch that lie on devices of this process, in order."""
    parts = batched(mesh).addressable_devices_indices_map((batch_images,)).values()
    return sorted({row for part in parts if part for row in range(*part[0].indices(batch_images))})


def to_global(mesh: Mesh, batch: Any, batch_images: int) -> Any:
    """Numpy arrays with this process's rows of a batch -> global arrays, split over `data`."""
    sharding = batched(mesh)
    return {
        key: jax.make_array_from_process_local_data(sharding, np.asarray(value), (batch_images, *value.shape[1:]))
        for key, value in batch.items()
    }
