"""Losses, one number an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Loss = Callable[[Float[Array, "B C"], Float[Array, "B C"]], Float[Array, "B"]]


def softmax_xent(logits: Float[Array, "B C"], targets: Float[Array, "B C"]) -> Float[Array, "B"]:
    """-sum_c t_c log softmax(z)_c."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def sigmoid_xent(logits: Float[Array, "B C"], targets: Float[Array, "B C"]) -> Float[Array, "B"]:
    """-sum_c t_c log sigmoid(z_c) + (1 - t_c) log sigmoid(-z_c): summed, not averaged, over the classes (big_vision)."""
    return -jnp.sum(targets * jax.nn.log_sigmoid(logits) + (1.0 - targets) * jax.nn.log_sigmoid(-logits), axis=-1)


LOSSES: dict[str, Loss] = {"softmax_xent": softmax_xent, "sigmoid_xent": sigmoid_xent}


def multi_hot(labels: Int[Array, "B K"], num_classes: int) -> Float[Array, "B C"]:
    """1 for each class that is among an image's labels (-1: none), else 0."""
    return jax.nn.one_hot(labels, num_classes).max(axis=1)
