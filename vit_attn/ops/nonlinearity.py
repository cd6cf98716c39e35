"""The functions that turn attention logits into attention weights.

jax is imported when a function is first called and not before: launchers list the names without touching an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable

from etils import epy

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Float

# h of arXiv:2309.08586, section 3. gelu is the tanh approximation (jax's default; the paper does not say which one).
POINTWISE: dict[str, Callable[[Float[Array, "..."]], Float[Array, "..."]]] = {
    "relu": lambda s: jax.nn.relu(s),
    "relu2": lambda s: jnp.square(jax.nn.relu(s)),
    "gelu": lambda s: jax.nn.gelu(s),
    "softplus": lambda s: jax.nn.softplus(s),
    "identity": lambda s: s,
    "relu6": lambda s: jax.nn.relu6(s),
    "sigmoid": lambda s: jax.nn.sigmoid(s),
}
# Functions of a whole row of logits. They have no alpha.
ROWWISE: dict[str, Callable[[Float[Array, "... k"]], Float[Array, "... k"]]] = {
    "softmax": lambda s: jax.nn.softmax(s, axis=-1),
}
NONLINEARITY = {**ROWWISE, **POINTWISE}


def length_scale(h: str, length: int, alpha: float | Float[Array, ""]) -> Float[Array, ""]:
    """L^-alpha in float32, with L the number of keys; 1 for an `h` that has no alpha. `alpha` may be traced."""
    exponent = 0.0 if h in ROWWISE else -jnp.asarray(alpha, jnp.float32)
    return jnp.asarray(length, jnp.float32) ** exponent


def weights(h: str, scores: Float[Array, "... q k"], alpha: float | Float[Array, ""]) -> Float[Array, "... q k"]:
    """Attention weights from logits z = q.k/sqrt(d): L^-alpha * h(z), or softmax(z).   arXiv:2309.08586, section 3."""
    return length_scale(h, scores.shape[-1], alpha) * NONLINEARITY[h](scores)
