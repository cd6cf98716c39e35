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
from vit_attn.parallel.rules import place
from vit_attn.spec.run import Knobs, RunSpec
from vit_attn.train.losses import LOSSES, multi_hot
from vit_attn.train.optimizer import adam, schedule, updates
from vit_attn.train.state import State


class Examples(NamedTuple):
    """An augmented batch, ready for the model. Image i is mixed with image i-1, and has this `share` of it: 1 if not mixed."""

    images: Float[Array, "B Y X 3"]
    labels: Int[Array, "B K"]
    share: Float[Array, ""]


class Part(NamedTuple):
    """Some images of a batch, and what the loss compares with."""

    images: Float[Array, "b Y X 3"]
    labels: Int[Array, "b K"]
    targets: Float[Array, "b C"]


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
    """One optimizer update of one member, and its metrics (scalars; `diverged_at` as in State)."""
    (loss, accuracy), grads = gradients(spec, state, knobs, examples)
    direction, moments = adam(spec.train).update(grads, state.moments)
    change = updates(spec.train, knobs, state.step, direction, state.params)
    params = optax.apply_updates(state.params, change)
    step, l2_grads, l2_params = state.step + 1, optax.tree.norm(grads), optax.tree.norm(params)
    bad_now = (state.diverged_at < 0) & ~jnp.isfinite(loss + l2_grads + l2_params)
    diverged_at = jnp.where(bad_now, step, state.diverged_at)
    metrics = {
        "train/loss": loss,
        "train/accuracy": accuracy,
        "train/learning_rate": knobs.peak_lr * schedule(spec.train, state.step),
        "train/l2_grads": l2_grads,
        "train/l2_updates": optax.tree.norm(change),
        "train/l2_params": l2_params,
        "diverged_at": diverged_at,
    }
    return State(params, moments, step, diverged_at), metrics


Measured = tuple[Float[Array, ""], Float[Array, ""]]  # loss, accuracy


def gradients(spec: RunSpec, state: State, knobs: Knobs, examples: Examples) -> tuple[Measured, Any]:
    """((loss, accuracy), gradients of the loss), means over the batch: of all at once, or of equal parts in turn.

    Each part has rows from everywhere in the batch, so that every device has its share of every part.
    """
    targets, count = targets_of(spec, examples), spec.train.accumulate
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(knobs.seed), crc32(b"dropout")), state.step)

    def objective(params: Any, part: Part, key: Array) -> tuple[Float[Array, ""], Measured]:
        logits, _ = ViT(spec.model).apply({"params": params}, part.images, knobs.attention, train=True, rngs={"dropout": key})
        hit = (jnp.argmax(logits, axis=-1)[:, None] == part.labels).any(axis=-1)
        loss = LOSSES[spec.train.loss](logits, part.targets).mean()
        return loss, (loss, hit.mean(dtype=jnp.float32))

    of_part = jax.grad(objective, has_aux=True)
    whole = Part(examples.images, examples.labels, targets)
    if count == 1:
        grads, measured = of_part(state.params, whole, key)
        return measured, grads

    def add(sums: Any, part_and_index: tuple[Part, Array]) -> tuple[Any, None]:
        part, index = part_and_index
        part = Part(*(place(x, "batch", *(None,) * (x.ndim - 1)) for x in part))
        return jax.tree.map(jnp.add, sums, of_part(state.params, part, jax.random.fold_in(key, index))), None

    parts = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), whole)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (state.params, (jnp.float32(0), jnp.float32(0))))
    (grads, measured), _ = jax.lax.scan(add, nothing, (parts, jnp.arange(count)))
    return jax.tree.map(lambda x: x / count, (measured, grads))
