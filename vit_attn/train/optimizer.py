"""big_vision's `scale_by_adam` recipe, with learning rate and weight decay as traced numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vit_attn.spec.run import Knobs, TrainSpec


def adam(train: TrainSpec) -> optax.GradientTransformation:
    """Clips the gradients to a global norm, if there is one, and turns them into Adam's direction."""
    direction = optax.scale_by_adam(train.adam_b1, train.adam_b2, train.adam_eps, mu_dtype=train.adam_mu_dtype)
    return direction if train.clip_norm is None else optax.chain(optax.clip_by_global_norm(train.clip_norm), direction)


def schedule(train: TrainSpec, step: Int[Array, ""]) -> Float[Array, ""]:
    """The fraction of the peak at a step. `step` counts the updates already made.

    In the warm-up it rises in a straight line from `warmup_start` to 1. From there on it is
    floor + (1 - floor) (1 + cos(pi p)) / 2; p ends at 1, and is 0 at the end of the warm-up (big_vision) or at step 0 (timm).
    """
    warmup, floor, first = train.warmup_steps, train.floor, train.warmup_steps if train.cosine_from == "warmup" else 0
    progress = jnp.clip((step - first) / (train.steps - first), 0.0, 1.0)
    cosine = floor + (1.0 - floor) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    if not warmup:
        return cosine
    rising = train.warmup_start + (1.0 - train.warmup_start) * step / warmup
    return jnp.where(step < warmup, rising, cosine)


def updates(train: TrainSpec, knobs: Knobs, step: Int[Array, ""], direction: Any, params: Any) -> Any:
    """-schedule * (peak_lr * direction + weight_decay * parameter), the decay for kernels only.

    The decay is decoupled and not multiplied by the learning rate: 1e-4 here is 0.1 in AdamW's terms at peak_lr 1e-3.
    """
    factor = schedule(train, step)

    def one(path: Any, d: Float[Array, "..."], p: Float[Array, "..."]) -> Float[Array, "..."]:
        decay = knobs.weight_decay * p if path[-1].key == "kernel" else 0.0
        return -factor * (knobs.peak_lr * d + decay)

    return jax.tree_util.tree_map_with_path(one, direction, params)
