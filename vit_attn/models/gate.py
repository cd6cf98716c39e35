"""The parameters of a gate. Weights start as PyTorch's Linear, biases at logit(pi_init) (arXiv:2306.12929, section B.1).

To fine-tune a network that had none (section B.6): small weights (gate_std) and the output over pi_init (gate_rescale).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.projection import Projection
from vit_attn.ops.gate import ACTIVATIONS, gated, per_head
from vit_attn.parallel.rules import place
from vit_attn.spec.model import AttentionSpec

Start = Callable[..., Float[Array, "..."]]


class Gate(nn.Module):
    """out -> out * gate(x); see ops.gate for what the kinds compute. Flat, as the projections' layout on a TPU is."""

    spec: AttentionSpec
    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, out: Float[Array, "B L D"], x: Float[Array, "B L D"], pi_init: float | Float[Array, ""]
    ) -> Float[Array, "B L D"]:
        width, heads = x.shape[-1], self.heads
        # Its gradient is whole before it meets those of q, k and v, which are shares of sums over devices: the compiler
        # (XLA of jax 0.10, with fsdp and model at once) otherwise counts it once for each of them.
        x = place(x, "batch", "tokens", None)
        if self.spec.gate == "gau":
            logits = Projection((width,), (heads, width // heads), self.dtype, name="dense")(x)
            return out * ACTIVATIONS[self.spec.gate_activation or "silu"](logits)

        start = jax.scipy.special.logit(jnp.asarray(pi_init, jnp.float32))
        x = x.astype(self.dtype)
        if self.spec.gate == "mlp":
            hidden = PerHead(heads, self.spec.n_hid or 4, torch_uniform(width // heads), name="hidden")
            x = nn.relu(hidden(x))
        groups, gives = (1, heads) if self.spec.gate == "all_heads" else (heads, 1)
        closed = jax.nn.initializers.constant(start)
        logits = PerHead(groups, gives, closed, self.spec.gate_std, name="dense")(x)
        return gated(out, logits, start if self.spec.gate_rescale else None)


class PerHead(nn.Module):
    """A Linear of its own for each of `heads` slices of the channels: kernel [heads, a, gives], bias [heads, gives].

    The kernel starts normal with standard deviation `std`, or as PyTorch's.
    """

    heads: int
    gives: int
    bias_start: Start
    std: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L E"]:
        a = x.shape[-1] // self.heads
        start = torch_uniform(a) if self.std is None else jax.nn.initializers.normal(self.std)
        kernel = self.param("kernel", start, (self.heads, a, self.gives))
        return per_head(x, kernel, self.param("bias", self.bias_start, (self.heads, self.gives)))


def torch_uniform(fan_in: int) -> Start:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for weights and biases of a Linear."""
    bound = fan_in**-0.5

    def start(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return start
