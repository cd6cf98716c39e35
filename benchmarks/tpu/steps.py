"""The training steps that are compiled for a TPU: functions of (state, knobs, examples), and the shapes of these."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.flax_step import flax_update
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec, knobs_of
from vit_attn.train.state import init_state
from vit_attn.train.step import Examples, update


@dataclass(frozen=True)
class Step:
    """`function`(state, knobs, examples)."""

    spec: RunSpec
    function: Callable[..., Any]

    @property
    def arguments(self) -> tuple[Any, Any, Examples]:
        """Shapes: state, knobs, examples."""
        spec = self.spec
        knobs = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, knobs_of(spec)))
        batch, side = spec.train.batch_images, spec.model.image_size
        shape: Any = jax.ShapeDtypeStruct
        examples = Examples(shape((batch, side, side, 3), jnp.float32), shape((batch, 1), jnp.int32), shape((), jnp.float32))
        return jax.eval_shape(partial(init_state, spec), knobs), knobs, examples


def ours(variant: str, batch: int, model: Mapping[str, Any] | None = None, **attention: Any) -> Step:
    """The trainer's update. bfloat16 computation, float32 parameters; without qk-layernorm unless `attention` has it."""
    settings = {"variant": variant, "dtype": "bfloat16", "attention": {"qk_norm": "none", **attention}, **(model or {})}
    spec = resolve({"model": settings, "train": {"batch_images": batch, "steps": 100}})
    return Step(spec, partial(update, spec))


def flax(variant: str, batch: int, float32_logits: bool, **attention: Any) -> Step:
    """big_vision's, with dtype_mm=bfloat16: softmax of flax's MultiHeadDotProductAttention.

    Its logits are bfloat16. float32_logits: jax.nn's attention in its place, whose logits and softmax are float32.
    """
    spec = ours(variant, batch, h="softmax", impl="dense", **attention).spec
    return Step(spec, partial(flax_update, spec, attention=float32_attention) if float32_logits else partial(flax_update, spec))


def float32_attention(q: jax.Array, k: jax.Array, v: jax.Array, **_: Any) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")
