"""What waits at the points of the network (see models.points): an operation that learns its range, or one that has it."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vit_attn.quant.estimate import extremes, least_error, percentiles
from vit_attn.quant.grid import Grid, asymmetric, highest_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rounding:
    """x to its grid; x as it is where it is off."""

    grid: Grid
    on: Bool[Array, ""]

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Rounding"]:
        return jnp.where(self.on, self.grid(x), x), self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Calibrating:
    """x to the grid of the range as it is known with x, which the next batch goes on from."""

    kind: str = field(metadata={"static": True})  # min_max | running_min_max | percentile | mse
    highest: Float[Array, ""]  # 2^b - 1
    on: Bool[Array, ""]
    momentum: Float[Array, ""]
    outside: Float[Array, ""]  # of a percentile: the share of numbers beyond each end
    low: Float[Array, ""]
    high: Float[Array, ""]
    batches: Int[Array, ""]  # seen so far
    finite: Bool[Array, ""]  # all numbers so far

    def __call__(self, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], "Calibrating"]:
        low, high = self._of_batch(x)
        if self.kind == "min_max":
            new_low, new_high = jnp.minimum(self.low, low), jnp.maximum(self.high, high)
        else:
            old, new = self.momentum, 1.0 - self.momentum
            new_low, new_high = old * self.low + new * low, old * self.high + new * high
        first, finite = self.batches == 0, self.finite & jnp.isfinite(x).all()
        low, high = jnp.where(first, low, new_low), jnp.where(first, high, new_high)
        after = replace(self, low=low, high=high, batches=self.batches + 1, finite=finite)
        return jnp.where(self.on, after.grid(x), x), after

    def _of_batch(self, x: Float[Array, "..."]) -> tuple[Array, Array]:
        if self.kind == "percentile":
            return percentiles(x, self.outside)
        if self.kind == "mse":
            return least_error(x, self.highest)
        return extremes(x)

    @property
    def grid(self) -> Grid:
        return asymmetric(self.low, self.high, self.highest)

    def calibrated(self) -> Rounding:
        return Rounding(self.grid, self.on)


def fresh(estimator: str, bits: int, on: bool, momentum: float) -> Calibrating:
    """`estimator` as in QuantSpec.measured: "percentile_99.99" is of the kind percentile."""
    kind, _, p = estimator.partition("percentile_")
    number = jnp.float32
    return Calibrating(
        kind="percentile" if p else kind,
        highest=highest_of(bits),
        on=jnp.bool_(on),
        momentum=number(momentum),
        outside=number((100 - float(p or 100)) / 100),
        low=number(0),
        high=number(0),
        batches=jnp.int32(0),
        finite=jnp.bool_(True),
    )
