"""Accuracy and loss over a split, every image counted once."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.vit import ViT
from vit_attn.ops.augment import normalize
from vit_attn.spec.run import Knobs, RunSpec
from vit_attn.train.losses import LOSSES


def sums(spec: RunSpec, params: Any, knobs: Knobs, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """Sums over one batch (image, label, mask) of what `means` divides; they add up over batches, devices and hosts."""
    labels, mask = batch["label"], batch["mask"]
    logits, _ = ViT(spec.model).apply({"params": params}, normalize(batch["image"]), knobs.attention)
    loss = LOSSES[spec.train.loss](logits, jax.nn.one_hot(labels, spec.model.num_classes))
    hits = jnp.argmax(logits, axis=-1) == labels
    return {"accuracy": jnp.sum(hits * mask), "loss": jnp.sum(jnp.where(mask > 0, loss, 0.0)), "images": jnp.sum(mask)}


def means(parts: list[dict[str, Any]]) -> dict[str, float]:
    """{"val/accuracy", "val/loss", "val/images"} from the sums of every batch of the split."""
    totals = {key: sum(float(part[key]) for part in parts) for key in parts[0]}
    images = totals["images"]
    return {"val/accuracy": totals["accuracy"] / images, "val/loss": totals["loss"] / images, "val/images": images}
