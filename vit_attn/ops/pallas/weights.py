"""From logits to weights and back, a key block of one head at a time.

A kind says how: `scan` goes over all key blocks first and gathers what a row's weights depend on (of a pointwise h nothing);
`weight` makes weights of logits, `finish` is owed to the sum of weighted values. Backwards, `cotangents` prepares the gradient
of the sum, `rescan` gathers once more over all key blocks, `pull` gives the gradient with respect to the logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_attn.ops.nonlinearity import ROWWISE, Rowwise, pointwise
from vit_attn.ops.pallas.geometry import Geometry
from vit_attn.ops.pallas.slopes import slope


@dataclass(frozen=True)
class Pointwise:
    """w = h(z). `both` gives h and its slope; without it the slope is found by differentiation."""

    h: Callable[[Array], Array]
    both: Callable[[Array], tuple[Array, Array]] | None = None
    unit: float = 1.0  # the logits come multiplied by it
    scans: bool = False
    stretches: bool = False

    def weight(self, row: None, s: Float[Array, "q k"]) -> Float[Array, "q k"]:
        return self.both(s)[0] if self.both else self.h(s)

    def finish(self, row: None, total: Float[Array, "q lanes"]) -> Float[Array, "q lanes"]:
        return total

    def cotangents(self, row: None, d_out: Float[Array, "q lanes"]) -> tuple[Array, Array]:
        """What meets the weights in d_v, and what meets v in the gradient `g` that `pull` takes."""
        return d_out, d_out

    def pull(self, row: None, again: None, s: Float[Array, "q k"], g: Float[Array, "q k"]) -> tuple[Array, Array]:
        """The weights, and the gradient with respect to the logits."""
        if self.both:
            w, slope = self.both(s)
            return w, g * slope
        w, pull = jax.vjp(self.h, s)
        return w, pull(g)[0]


class Row(NamedTuple):
    """Of each row of logits: its maximum, and the sum of exp2(logit - maximum)."""

    top: Float[Array, "q 1"]
    total: Float[Array, "q 1"]


class Again(NamedTuple):
    """Of each row: sum_j p_j g_j with p = exp2(logit - maximum), and sum_j g_j (of clipped softmax)."""

    weighted: Float[Array, "q 1"]
    plain: Float[Array, "q 1"]


@dataclass(frozen=True)
class Softmax:
    """w = p / sum p with p = 2^(z/ln 2 - max), or a relative of it. `gamma` and `zeta` are those of clipped softmax."""

    kind: Rowwise
    gamma: Any
    zeta: Any
    unit: float = 1.0 / float(np.log(2.0))
    scans: bool = True

    @property
    def stretches(self) -> bool:
        return self.kind.clipped

    def first(self, rows: int) -> Row:
        """Of no logits yet, or of the one that is always 0."""
        top, total = (0.0, 1.0) if self.kind.zero_logit else (-jnp.inf, 0.0)
        return Row(jnp.full((rows, 1), top), jnp.full((rows, 1), total))

    def scan(self, row: Row, s: Float[Array, "q k"]) -> Row:
        top = jnp.maximum(row.top, s.max(-1, keepdims=True))
        total = row.total * jnp.exp2(row.top - top) + jnp.exp2(s - top).sum(-1, keepdims=True)
        return Row(top, total)

    def stretched(self, row: Row, p: Float[Array, "q k"]) -> Float[Array, "q k"]:
        return p * ((self.zeta - self.gamma) / row.total) + self.gamma

    def weight(self, row: Row, s: Float[Array, "q k"]) -> Float[Array, "q k"]:
        p = jnp.exp2(s - row.top)
        return jnp.clip(self.stretched(row, p), 0.0, 1.0) if self.kind.clipped else p

    def finish(self, row: Row, total: Float[Array, "q lanes"]) -> Float[Array, "q lanes"]:
        return total if self.kind.clipped else total / row.total

    def cotangents(self, row: Row, d_out: Float[Array, "q lanes"]) -> tuple[Array, Array]:
        if self.kind.clipped:
            return d_out, d_out * ((self.zeta - self.gamma) / row.total)
        return d_out / row.total, d_out / row.total

    def passed(self, row: Row, p: Float[Array, "q k"], g: Float[Array, "q k"]) -> Float[Array, "q k"]:
        """`g` where the weight is not clipped."""
        if not self.kind.clipped:
            return g
        u = self.stretched(row, p)
        return jnp.where((u > 0.0) & (u < 1.0), g, 0.0)

    def rescan(self, row: Row, again: Again, s: Float[Array, "q k"], g: Float[Array, "q k"]) -> Again:
        p = jnp.exp2(s - row.top)
        g = self.passed(row, p, g)
        plain = again.plain + g.sum(-1, keepdims=True) if self.kind.clipped else again.plain
        return Again(again.weighted + (p * g).sum(-1, keepdims=True), plain)

    def pull(self, row: Row, again: Again, s: Float[Array, "q k"], g: Float[Array, "q k"]) -> tuple[Array, Array]:
        p = jnp.exp2(s - row.top)
        w = jnp.clip(self.stretched(row, p), 0.0, 1.0) if self.kind.clipped else p
        return w, p * (self.passed(row, p, g) - again.weighted / row.total)

    def stretch_gradients(self, row: Row, again: Again) -> tuple[Float[Array, "q 1"], Float[Array, "q 1"]]:
        """Each row's part of the gradients with respect to gamma and zeta: u = (zeta - gamma) p / total + gamma."""
        zeta = again.weighted / (self.zeta - self.gamma)
        return again.plain * row.total / (self.zeta - self.gamma) - zeta, zeta


def kind(geometry: Geometry, stretch: tuple[Any, Any]) -> Pointwise | Softmax:
    """The kind of weights that geometry.h makes; (gamma, zeta) may be traced."""
    h, length = geometry.h, geometry.length
    if h in ROWWISE:
        return Softmax(ROWWISE[h], *stretch)
    return Pointwise(pointwise(h, length), slope(h, length) if geometry.dtype == jnp.bfloat16 else None)
