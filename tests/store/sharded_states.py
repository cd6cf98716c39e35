"""A small tree of arrays of all the types that a state has, spread over devices in several ways."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vit_attn.train.state import State

MESHES = {  # name: (sizes, what lies where)
    "one device": ((1, 1, 1), {}),
    "replicated": ((8, 1, 1), {}),
    "fsdp": ((1, 8, 1), {"kernel": (None, "fsdp")}),
    "data and fsdp": ((4, 2, 1), {"kernel": (None, "fsdp"), "positions": (None, None, "fsdp"), "mu": ("fsdp",)}),
    "crossed": ((1, 2, 2), {"kernel": ("fsdp", "model"), "mu": (None, ("model", "fsdp")), "positions": (None, None, "model")}),
    "by rows": ((2, 2, 1), {"kernel": ("data",), "mu": ("fsdp", "data"), "deep": (None, None, "data")}),
    "fsdp and model": (
        (2, 2, 2),
        {"kernel": ("model", "fsdp"), "mu": (None, ("model", "fsdp")), "deep": (None, "fsdp", "model")},
    ),
}
SHAPES = {
    "kernel": ((6, 16), np.float32),
    "bias": ((7,), np.float32),
    "positions": ((1, 5, 4), np.float32),
    "deep": ((3, 2, 10, 5), np.float32),
    "mu": ((6, 16), jnp.bfloat16),
    "key": ((3,), np.uint32),
}


def numbers(seed=0):
    """{name: array} on the host, with every bit of every word at random (NaNs and infinities too)."""
    rng = np.random.default_rng(seed)
    words = {2: np.uint16, 4: np.uint32}
    found = {}
    for name, (shape, dtype) in SHAPES.items():
        size = np.dtype(dtype).itemsize
        found[name] = rng.integers(0, 2 ** (8 * size), shape, dtype=np.uint64).astype(words[size]).view(dtype)
    return found


def tree_of(leaf_of, step=11):
    """A State whose leaves are leaf_of(name); None, empty nodes and scalars as optax has them."""
    params = {"Transformer": {"kernel": leaf_of("kernel"), "bias": leaf_of("bias")}, "deep": leaf_of("deep")}
    moments = ((), ({"mu": leaf_of("mu")}, None, {"key": leaf_of("key")}))
    return State({**params, "positions": leaf_of("positions")}, moments, step, np.int32(-1))


def sharding_of(layout, devices=None):
    """name -> NamedSharding."""
    sizes, places = MESHES[layout]
    devices = jax.devices()[: int(np.prod(sizes))] if devices is None else devices
    mesh = jax.make_mesh(sizes, ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3, devices=devices)
    return lambda name: NamedSharding(mesh, PartitionSpec(*places.get(name, ())))


def state_of(layout, values):
    """The numbers as a State of global arrays; every process puts the parts of its devices."""
    sharding = sharding_of(layout)

    def put(x, where):
        return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

    state = tree_of(lambda name: put(values[name], sharding(name)))
    return state._replace(**{name: put(np.int32(x), sharding(name)) for name, x in (("step", 11), ("health", -1))})


def like_of(layout):
    """Shapes, types and shardings of such a state."""
    sharding = sharding_of(layout)
    like = tree_of(lambda name: jax.ShapeDtypeStruct(*SHAPES[name], sharding=sharding(name)))
    scalar = jax.ShapeDtypeStruct((), np.int32, sharding=sharding(""))
    return like._replace(step=scalar, health=scalar)
