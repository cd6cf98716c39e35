"""The peer's training step: big_vision's train loop around flax_vit.FlaxViT, with the optimizer and the loss that are ours."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax

from benchmarks.flax_vit import FlaxViT
from vit_attn.spec.run import Knobs, RunSpec
from vit_attn.train.losses import softmax_xent
from vit_attn.train.optimizer import adam, updates
from vit_attn.train.state import State
from vit_attn.train.step import Examples


def flax_update(
    spec: RunSpec,
    state: State,
    knobs: Knobs,
    examples: Examples,
    attention: Callable[..., Any] = nn.dot_product_attention,
) -> tuple[State, Any]:
    """vit_attn.train.step.update with the peer's network, and the metrics that big_vision's update_fn has."""
    m = spec.model
    sizes = (m.num_classes, m.patch, m.width, m.depth, m.heads, m.mlp_dim)
    model = FlaxViT(*sizes, qk_norm=m.attention.qk_norm == "head", dtype=m.dtype, attention_fn=attention)
    targets = jax.nn.one_hot(examples.labels[:, 0], m.num_classes)

    def objective(params: Any) -> jax.Array:
        return softmax_xent(model.apply({"params": params}, examples.images), targets).mean()  # type: ignore[arg-type]

    loss, grads = jax.value_and_grad(objective)(state.params)
    direction, moments = adam(spec.train).update(grads, state.moments)
    change = updates(spec.train, knobs, state.step, direction, state.params)
    params = optax.apply_updates(state.params, change)
    norms = {"grads": grads, "updates": change, "params": params}
    metrics = {"train/loss": loss} | {f"train/l2_{name}": optax.tree.norm(tree) for name, tree in norms.items()}
    return State(params, moments, state.step + 1, state.health), metrics
