"""The functions that turn attention logits into attention weights.

jax is imported when a function is first called and not before: launchers list the names without touching an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from etils import epy

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Bool, Float

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
# Pointwise too, but they know L themselves: no alpha. sigmoid_bias: arXiv:2409.04431, section 2.
POINTWISE_OF_LENGTH: dict[str, Callable[[Float[Array, "..."], int], Float[Array, "..."]]] = {
    "sigmoid_bias": lambda s, length: jax.nn.sigmoid(s - jnp.log(jnp.float32(length))),
}


@dataclass(frozen=True)
class Rowwise:
    """A softmax of the row of logits, or a relative of it. No alpha."""

    zero_logit: bool = False  # one more logit, always 0, whose weight goes nowhere
    clipped: bool = False  # clip((zeta - gamma) * softmax + gamma, 0, 1): arXiv:2306.12929, equation 4


ROWWISE: dict[str, Rowwise] = {
    "softmax": Rowwise(),
    "softmax1": Rowwise(zero_logit=True),
    "clipped_softmax": Rowwise(clipped=True),
}
NONLINEARITY: dict[str, Any] = {**ROWWISE, **POINTWISE, **POINTWISE_OF_LENGTH}


class Numbers(NamedTuple):
    """The numbers of an attention: Python numbers or traced scalars (a learned alpha may be one number a head, [H])."""

    alpha: Any = 0.0  # of a pointwise h
    gamma: Any = 0.0  # of clipped softmax, <= 0
    zeta: Any = 1.0  # of clipped softmax, >= 1
    gamma_per_length: Any = 0.0  # c >= 0: gamma = -c / L
    pi_init: Any = 0.5  # of a gate: the probability that it starts with

    def stretch(self, length: int) -> tuple[Any, Any]:
        """(gamma, zeta) of clipped softmax over `length` keys."""
        return self.gamma - self.gamma_per_length / length, self.zeta


def pointwise(h: str, length: int) -> Callable[[Float[Array, "..."]], Float[Array, "..."]]:
    """The function of one logit that `h` is over `length` keys."""
    if h in POINTWISE_OF_LENGTH:
        return lambda s: POINTWISE_OF_LENGTH[h](s, length)
    return POINTWISE[h]


def length_scale(h: str, length: int, alpha: float | Float[Array, "..."]) -> Float[Array, "..."]:
    """L^-alpha in float32, with L the number of keys; 1 for an `h` that has no alpha. `alpha` may be traced."""
    exponent = -jnp.asarray(alpha, jnp.float32) if h in POINTWISE else 0.0
    return jnp.asarray(length, jnp.float32) ** exponent


def unscaled_weights(
    h: str,
    length: int,
    scores: Float[Array, "... q k"],
    numbers: Numbers,
    hidden: Bool[Array, "... #q #k"] | None = None,
) -> Float[Array, "... q k"]:
    """Attention weights but for L^-alpha: h(z), softmax(z) or a relative. Where `hidden` is True they are exactly 0."""
    if h not in ROWWISE:
        if hidden is None:
            return pointwise(h, length)(scores)
        return jnp.where(hidden, 0.0, pointwise(h, length)(jnp.where(hidden, 0.0, scores)))
    row = ROWWISE[h]
    if hidden is not None:
        scores = jnp.where(hidden, -jnp.inf, scores)
    top = row_maximum(row, scores)
    p = jnp.exp(scores - top)
    total = p.sum(axis=-1, keepdims=True) + (jnp.exp(-top) if row.zero_logit else 0.0)
    p = p / jnp.where(total == 0.0, 1.0, total)  # a row whose keys are all hidden: zeros
    if row.clipped:
        p = clip_stretched(p, *numbers.stretch(length))
    return p


def row_maximum(row: Rowwise, scores: Float[Array, "... q k"]) -> Float[Array, "... q 1"]:
    """The largest logit of each row (0 counts too where there is a zero logit), without gradient; 0 if all are hidden."""
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    if row.zero_logit:
        top = jnp.maximum(top, 0.0)
    return jnp.where(top == -jnp.inf, 0.0, top)


def clip_stretched(p: Float[Array, "..."], gamma: Any, zeta: Any) -> Float[Array, "..."]:
    """clip((zeta - gamma) p + gamma, 0, 1): below -gamma/(zeta - gamma) exactly 0, above (1 - gamma)/(zeta - gamma) exactly 1.

    No gradient passes where it clips.   arXiv:2306.12929, equation 4
    """
    w = (zeta - gamma) * p + gamma
    return jnp.where(w <= 0.0, 0.0, jnp.where(w >= 1.0, 1.0, w))  # jnp.clip would pass half of the gradient at 0 and 1


def weights(h: str, scores: Float[Array, "... q k"], numbers: Numbers) -> Float[Array, "... q k"]:
    """Attention weights from logits z = q.k/sqrt(d): L^-alpha * h(z), or a softmax of z.   arXiv:2309.08586, section 3."""
    length = scores.shape[-1]
    return length_scale(h, length, numbers.alpha) * unscaled_weights(h, length, scores, numbers)
