"""Random keys of augmentation: a pure function of (seed, epoch, example), so that a resumed run sees the same pixels."""

import jax
from jaxtyping import Array, Int, Key


def example_keys(seed: int, epoch: Int[Array, "B"], index: Int[Array, "B"]) -> Key[Array, "B"]:
    """One random key an image: (seed, epoch, index of the example in its split) -> key."""
    key = jax.random.key(seed)
    return jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(key, e), i))(epoch, index)
