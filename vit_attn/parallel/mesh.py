"""The device mesh, and where arrays lie on it. Data-parallel: batches are split over `data`, everything else is replicated."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vit_attn.spec.errors import UserError


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or the given ones, on the axis `data`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_divides(mesh: Mesh, **batch_images: int) -> None:
    """Raises UserError for a batch size (given by the name of its setting) that the devices cannot share evenly."""
    n = mesh.shape["data"]
    for key, b in batch_images.items():
        if b % n:
            nearest = ", ".join(str(size) for size in (b // n * n, -(-b // n) * n) if size)
            name = f"config.{key.replace('__', '.')}"
            raise UserError(f"{name}={b} is not divisible by the {n} devices of mesh axis 'data'; nearest: {nearest}")


def to_global(mesh: Mesh, batch: Any) -> Any:
    """Numpy arrays of a batch -> global arrays, split over `data`."""
    sharding = batched(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, np.asarray(value)) for key, value in batch.items()}
