"""The step: pure functions of arrays, one for the batch (shared by a pack) and one for a member's update."""

from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vit_attn.models.vit import ViT
from vit_attn.ops.augment.jitter import color_jitter, random_erasing
from vit_attn.ops.augment.keys import example_keys
from vit_attn.ops.augment.mix import mix
from vit_attn.ops.augment.pixels import normalize
from vit_attn.ops.augment.randaugment import randaugment
from vit_attn.ops.augment.window import random_crop, random_flip
from vit_attn.parallel.mesh import batch_split
from vit_attn.spec.run import Knobs, RunSpec
from vit_attn.train.health import examine, judge, made
from vit_attn.train.losses import LOSSES, multi_hot
from vit_attn.train.optimizer import adam, schedule, updates
from vit_attn.train.state import State


class Examples(NamedTuple):
    """An augmented batch, ready for the model. Image i is mixed with image i-1, and has this `share` of it: 1 if not mixed."""

    images: Float[Array, "B Y X 3"]
    labels: Int[Array, "B K"]
    share: Float[Array, ""]


def prepare(spec: RunSpec, batch: dict[str, Array], step: Int[Array, ""]) -> Examples:
    """Augments and normalises the batch of `step`. All members of a pack train on what comes out.

    An image's augmentation is a function of (data.seed, epoch, index); mixing is one of (data.seed, step).
    """
    data, images = spec.data, batch["image"]
    keys = example_keys(data.seed, batch["epoch"], batch["index"])
    crop, flip, randaug, jitter, erase = jax.vmap(lambda key: jax.random.split(key, 5), out_axes=1)(keys)
    if data.crop_padding:
        images = random_crop(crop, images, data.crop_padding)
    if data.flip:
        images = random_flip(flip, images)
    if data.randaug_layers:
        images = randaugment(randaug, images, data.randaug_layers, data.randaug_magnitude, batch_split())
    if data.color_jitter:
        images = color_jitter(jitter, images, data.color_jitter)
    pixels, share = normalize(images), jnp.float32(1)
    if data.random_erasing:
        pixels = random_erasing(erase, pixels, data.random_erasing)
    if data.mixup or data.cutmix:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(data.seed), crc32(b"mix")), step)
        pixels, share = mix(key, pixels, data.mixup, data.cutmix)
    return Examples(pixels, batch["labels"], share)


def targets_of(spec: RunSpec, examples: Examples) -> Float[Array, "B C"]:
    """What the loss compares with: the labels, mixed as the images are, and smoothed."""
    own, smoothing = multi_hot(examples.labels, spec.model.num_classes), spec.train.label_smoothing
    targets = own
    if spec.data.mixup or spec.data.cutmix:
        targets = examples.share * own + (1.0 - examples.share) * jnp.roll(own, 1, axis=0)
    return targets * (1.0 - smoothing) + smoothing / spec.model.num_classes if smoothing else targets


def update(spec: RunSpec, state: State, knobs: Knobs, examples: Examples) -> tuple[State, dict[str, Array]]:
    """One optimizer update of one member, and its metrics (scalars; `diverged_at` and `culprit` as in Health)."""
    targets = targets_of(spec, examples)
    dropout_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(knobs.seed), crc32(b"dropout")), state.step)

    def objective(params: Any) -> tuple[Float[Array, ""], Float[Array, "B C"]]:
        logits, _ = ViT(spec.model).apply(
            {"params": params}, examples.images, knobs.attention, train=True, rngs={"dropout": dropout_key}
        )
        return LOSSES[spec.train.loss](logits, targets).mean(), logits

    (loss, logits), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    culprit = examine(loss, grads)
    direction, moments = adam(spec.train).update(grads, state.moments)
    change = updates(spec.train, knobs, state.step, direction, state.params)
    new = (optax.apply_updates(state.params, change), moments)
    params, moments = made(spec.train, culprit, new, (state.params, state.moments))
    step, l2_grads, l2_params = state.step + 1, optax.tree.norm(grads), optax.tree.norm(params)
    health = judge(spec.train, state.health, step, loss, culprit, params)
    metrics = {
        "train/loss": loss,
        "train/accuracy": jnp.mean((jnp.argmax(logits, axis=-1)[:, None] == examples.labels).any(axis=-1), dtype=jnp.float32),
        "train/learning_rate": knobs.peak_lr * schedule(spec.train, state.step),
        "train/l2_grads": l2_grads,
        "train/l2_updates": optax.tree.norm(change),
        "train/l2_params": l2_params,
        "train/loss_spikes": health.loss_spikes,
        "diverged_at": health.diverged_at,
        "culprit": health.culprit,
    }
    if spec.train.on_nonfinite == "skip":
        metrics["train/skipped"] = health.skipped
    return State(params, moments, step, health), metrics
