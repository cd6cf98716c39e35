"""The step: pure functions of arrays, one for the batch (shared by a pack) and one for a member's update."""

from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt8

from vit_attn.models.vit import ViT
from vit_attn.ops.augment import example_keys, normalize, random_crop, random_flip
from vit_attn.spec.run import Knobs, RunSpec
from vit_attn.train.losses import LOSSES
from vit_attn.train.optimizer import adam, schedule, updates
from vit_attn.train.state import State


class Examples(NamedTuple):
    """An augmented batch, ready for the model."""

    images: Float[Array, "B Y X 3"]
    labels: Int[Array, "B"]


def prepare(spec: RunSpec, images: UInt8[Array, "B Y X 3"], labels: Int[Array, "B"], step: Int[Array, ""]) -> Examples:
    """Augments and normalises the batch of `step`. All members of a pack train on what comes out."""
    data = spec.data
    crop_keys, flip_keys = jax.vmap(jax.random.split, out_axes=1)(example_keys(data.seed, step, images.shape[0]))
    if data.crop_padding:
        images = random_crop(crop_keys, images, data.crop_padding)
    if data.flip:
        images = random_flip(flip_keys, images)
    return Examples(normalize(images), labels)


def update(spec: RunSpec, state: State, knobs: Knobs, examples: Examples) -> tuple[State, dict[str, Array]]:
    """One optimizer update of one member, and its metrics (scalars; `diverged_at` as in State)."""
    targets = jax.nn.one_hot(examples.labels, spec.model.num_classes)
    dropout_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(knobs.seed), crc32(b"dropout")), state.step)

    def objective(params: Any) -> tuple[Float[Array, ""], Float[Array, "B C"]]:
        logits, _ = ViT(spec.model).apply(
            {"params": params}, examples.images, knobs.attention, train=True, rngs={"dropout": dropout_key}
        )
        return LOSSES[spec.train.loss](logits, targets).mean(), logits

    (loss, logits), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    direction, moments = adam(spec.train).update(grads, state.moments)
    change = updates(spec.train, knobs, state.step, direction, state.params)
    params = optax.apply_updates(state.params, change)
    step, l2_grads, l2_params = state.step + 1, optax.tree.norm(grads), optax.tree.norm(params)
    bad_now = (state.diverged_at < 0) & ~jnp.isfinite(loss + l2_grads + l2_params)
    diverged_at = jnp.where(bad_now, step, state.diverged_at)
    metrics = {
        "train/loss": loss,
        "train/accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == examples.labels, dtype=jnp.float32),
        "train/learning_rate": knobs.peak_lr * schedule(spec.train, state.step),
        "train/l2_grads": l2_grads,
        "train/l2_updates": optax.tree.norm(change),
        "train/l2_params": l2_params,
        "diverged_at": diverged_at,
    }
    return State(params, moments, step, diverged_at), metrics
