"""Ranges of activations: images through the network, whose points learn what they see and round it at once."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from vit_attn.models.points import COLLECTION
from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.quant.names import Names
from vit_attn.quant.operation import Calibrating, Rounding, fresh
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.quant import QuantSpec
from vit_attn.store.paths import nested


class Network(NamedTuple):
    """A network whose weights are quantized already."""

    model: ModelSpec
    params: Any
    numbers: Numbers


def calibrate(
    network: Network, names: Names, quant: QuantSpec, estimator: str, batches: Iterable[Array]
) -> dict[str, Calibrating]:
    """What the points, by path, have learned from batches of images (bytes).

    Raises UserError, with the name of the point, for numbers that are not finite.
    """
    waiting = {
        path: fresh(estimator, quant.activation_bits, names.on(name), quant.momentum) for path, name in names.points.items()
    }
    operations = nested(waiting)
    for images in batches:
        operations = _observe(network.model, network.params, network.numbers, operations, images)
    learned = {path: _at(operations, path) for path in names.points}
    finite = jax.device_get({path: operation.finite for path, operation in learned.items()})
    for path, name in names.points.items():
        if not finite[path]:
            raise UserError(f"the point {name} has numbers that are not finite: no range can hold them (has the run diverged?)")
    return learned


def roundings(learned: dict[str, Calibrating]) -> Any:
    """The operations of a network that is quantized: the collection `points`."""
    ready: dict[str, Rounding] = {path: operation.calibrated() for path, operation in learned.items()}
    return nested(ready)


@partial(jax.jit, static_argnums=0)
def _observe(model: ModelSpec, params: Any, numbers: Numbers, operations: Any, images: Array) -> Any:
    given = {"params": params, COLLECTION: operations}
    _, after = ViT(model).apply(given, normalize(images), numbers, mutable=[COLLECTION])
    return after[COLLECTION]


def _at(tree: Any, path: str) -> Any:
    for part in path.split("/"):
        tree = tree[part]
    return tree
