"""big_vision's `scale_by_adam` recipe, with learning rate and weight decay as traced numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vit_attn.spec.run import Knobs, TrainSpec


def adam(train: TrainSpec) -> optax.GradientTransformation:
    """Clips the gradients to a global norm and turns them into Adam's direction."""
    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.scale_by_adam(train.adam_b1, train.adam_b2, train.adam_eps, mu_dtype=train.adam_mu_dtype),
    )


def schedule(train: TrainSpec, step: Int[Array, ""]) -> Float[Array, ""]:
    """Cosine to 0 behind the warm-up, times min(1, step / warmup_steps). `step` counts the updates already made."""
    warmup = train.warmup_steps
    progress = jnp.clip((step - warmup) / (train.steps - warmup), 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return cosine * jnp.minimum(1.0, step / warmup) if warmup else cosine


def updates(train: TrainSpec, knobs: Knobs, step: Int[Array, ""], direction: Any, params: Any) -> Any:
    """-schedule * (peak_lr * direction + weight_decay * parameter), the decay for kernels only.

    The decay is decoupled and not multiplied by the learning rate: 1e-4 here is 0.1 in AdamW's terms at peak_lr 1e-3.
    """
    factor = schedule(train, step)

    def one(path: Any, d: Float[Array, "..."], p: Float[Array, "..."]) -> Float[Array, "..."]:
        decay = knobs.weight_decay * p if path[-1].key == "kernel" else 0.0
        return -factor * (knobs.peak_lr * d + decay)

    return jax.tree_util.tree_map_with_path(one, direction, params)
