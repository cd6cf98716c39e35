"""What training changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vit_attn.models.vit import ViT
from vit_attn.spec.run import Knobs, RunSpec
from vit_attn.train.health import Health, healthy
from vit_attn.train.optimizer import adam


class State(NamedTuple):
    """One member's state, all of it: with it a run goes on as if it had never stopped."""

    params: Any
    moments: Any
    step: Int[Array, ""]
    health: Health


def init_state(spec: RunSpec, knobs: Knobs) -> State:
    """Fresh parameters from knobs.seed (which may be traced), zero moments, step 0."""
    side = spec.model.image_size
    images = jnp.zeros((1, side, side, 3), jnp.float32)
    params = ViT(spec.model).init(jax.random.key(knobs.seed), images, knobs.attention)["params"]
    return State(params, adam(spec.train).init(params), jnp.int32(0), healthy())
