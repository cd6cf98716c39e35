"""How a member fares: which quantity was the first that is not finite, updates that were not made, spikes of the loss."""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vit_attn.spec.run import TrainSpec
from vit_attn.store.paths import paths_of

SPIKE_STEPS = 100  # a spike is one against the mean of so many losses, and none is counted before there are as many
# From the loss backwards: where it first went wrong is nearest to the loss, and all that lies behind follows.
_FROM_THE_LOSS = ("head/", "pre_logits/", "MAPHead_0/", "Transformer/encoder_norm/", "Transformer/")


class Health(NamedTuple):
    """Part of a member's state, so that a resumed run counts on exactly. Counts are of updates, from the start of the run."""

    diverged_at: Int[Array, ""]  # the step at which the member was given up; else -1
    culprit: Int[Array, ""]  # what was the first to be not finite (see `culprits`), in the latest row of bad updates; else -1
    bad_in_a_row: Int[Array, ""]
    skipped: Int[Array, ""]  # updates that were not made
    losses: Int[Array, ""]  # that the running mean has seen
    loss_mean: Float[Array, ""]
    loss_variance: Float[Array, ""]
    loss_spikes: Int[Array, ""]


def healthy() -> Health:
    """Of a member that has not taken a step."""
    none, zero = jnp.int32(-1), jnp.int32(0)
    return Health(none, none, zero, zero, zero, jnp.float32(0), jnp.float32(0), zero)


def examine(loss: Float[Array, ""], grads: Any) -> Int[Array, ""]:
    """The culprit (an index of `culprits`) of an update whose loss or gradients are not finite; -1 if they all are.

    So are gradients whose sum of squares is not, though each of them is: the norm that clips them is then useless.
    """
    first = _first_not_finite(grads)
    return jnp.where(jnp.isfinite(loss), jnp.where(first < 0, -1, 1 + first), 0)


def made(train: TrainSpec, culprit: Int[Array, ""], new: Any, old: Any) -> Any:
    """What an update leaves behind: `new`, or with on_nonfinite = skip the `old` where there is a culprit, bit for bit."""
    if train.on_nonfinite == "leave":
        return new
    return jax.tree.map(partial(jnp.where, culprit < 0), new, old)


def judge(
    train: TrainSpec, health: Health, step: Int[Array, ""], loss: Float[Array, ""], culprit: Int[Array, ""], params: Any
) -> Health:
    """The health behind update number `step`, whose loss and gradients have that `culprit` and which left these `params`.

    A member diverges with its first bad update, or with on_nonfinite = skip with the skip_limit-th in a row. Parameters that
    are not finite are no matter of skipping: what came before them was finite, and would come again.
    """
    skips = train.on_nonfinite == "skip"
    first = _first_not_finite(params)
    ruined = first >= 0
    skipped = (culprit >= 0) & skips
    culprit = jnp.where((culprit < 0) & ruined, 1 + len(jax.tree.leaves(params)) + first, culprit)
    bad = culprit >= 0
    in_a_row = jnp.where(bad, health.bad_in_a_row + 1, 0)
    lost = bad & (ruined | (in_a_row >= (train.skip_limit if skips else 1)))
    here = health.diverged_at < 0
    return _with_loss(train, health, loss, ~bad)._replace(
        diverged_at=jnp.where(here & lost, step, health.diverged_at),
        culprit=jnp.where(here & bad & (in_a_row == 1), culprit, health.culprit),
        bad_in_a_row=in_a_row,
        skipped=health.skipped + skipped,
    )


def _with_loss(train: TrainSpec, health: Health, loss: Float[Array, ""], counts: Bool[Array, ""]) -> Health:
    """Counts a loss above mean + spike_sigmas * standard deviation, and takes the loss into both.

    They are those of all losses up to SPIKE_STEPS of them, then exponentially weighted with the rate 1 / SPIKE_STEPS. A spike
    enters them cut down to that limit: so one does not hide the next, and a level that stays does not count for ever.
    """
    known = health.losses >= SPIKE_STEPS
    limit = health.loss_mean + train.spike_sigmas * jnp.sqrt(health.loss_variance)
    rate = 1.0 / jnp.minimum(health.losses + 1, SPIKE_STEPS)
    off = jnp.where(known, jnp.minimum(loss, limit), loss) - health.loss_mean
    seen = health._replace(
        losses=health.losses + 1,
        loss_mean=health.loss_mean + rate * off,
        loss_variance=(1.0 - rate) * (health.loss_variance + rate * jnp.square(off)),
        loss_spikes=health.loss_spikes + (known & (loss > limit)),
    )
    return jax.tree.map(partial(jnp.where, counts), seen, health)


def diagnosis(train: TrainSpec, params: Any, diverged_at: int, culprit: int) -> str:
    """ "diverged at step 7: the gradient of head/kernel is not finite", for a member's status, of what its Health says."""
    what = f"{culprits(params)[culprit]} is not finite"
    if train.on_nonfinite == "skip" and culprit <= len(jax.tree.leaves(params)):
        what = f"{train.skip_limit} updates in a row were skipped, since step {diverged_at - train.skip_limit + 1} {what}"
    return f"diverged at step {diverged_at}: {what}"


def culprits(params: Any) -> list[str]:
    """The quantities that may be the first: the loss, the gradients from the loss backwards, the parameters likewise."""
    names = _from_the_loss(params)
    return ["the loss", *(f"the gradient of {name}" for name in names), *(f"the parameter {name}" for name in names)]


def _first_not_finite(tree: Any) -> Int[Array, ""]:
    """The index of the first leaf at which the running sum of squares, from the loss backwards, is not finite; else -1."""
    # The norms need the same sums of squares: the compiler takes them once.
    sums = jnp.cumsum(jnp.stack([jnp.sum(jnp.square(x)) for x in _from_the_loss(tree).values()]))
    bad = ~jnp.isfinite(sums)
    return jnp.where(bad.any(), jnp.argmax(bad), -1).astype(jnp.int32)


def _from_the_loss(tree: Any) -> dict[str, Any]:
    """Leaves by their paths, the nearest to the loss first; blocks from the last to the first one."""

    def distance(item: tuple[str, Any]) -> tuple[int, int]:
        name, _ = item
        place = next((i for i, prefix in enumerate(_FROM_THE_LOSS) if name.startswith(prefix)), len(_FROM_THE_LOSS))
        block = re.search(r"encoderblock_(\d+)/", name)
        return place, -int(block[1]) if block else 0

    return dict(sorted(paths_of(tree).items(), key=distance))
