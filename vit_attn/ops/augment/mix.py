"""Images of a batch mixed with their neighbours: mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Weights = Float[Array, "#Y #X"]


def mix(
    key: Key[Array, ""], images: Float[Array, "B Y X 3"], mixup: float, cutmix: float
) -> tuple[Float[Array, "B Y X 3"], Float[Array, ""]]:
    """w x_i + (1 - w) x_(i-1), and the mean of w: the share of image i and its label. One w for the whole batch.

    mixup > 0: w = max(l, 1 - l) everywhere, l ~ Beta(mixup, mixup), as in big_vision. cutmix > 0: w is 0 in a box and 1 around
    it, as timm's batch mode. Both: one of the two with probability 1/2 each. Neither: the images and 1.
    """
    if not (mixup or cutmix):
        return images, jnp.ones((), images.dtype)
    which, key = jax.random.split(key)
    shape = (images.shape[1], images.shape[2])
    if mixup and cutmix:
        boxed = jax.random.bernoulli(which)
        weights = jnp.where(boxed, around_box(key, cutmix, shape), mixed(key, mixup))
    else:
        weights = mixed(key, mixup) if mixup else around_box(key, cutmix, shape)
    own = weights[None, :, :, None].astype(images.dtype)
    return own * images + (1 - own) * jnp.roll(images, 1, axis=0), weights.mean().astype(images.dtype)


def mixed(key: Key[Array, ""], concentration: float) -> Weights:
    """One number between 1/2 and 1 for all pixels."""
    share = jax.random.beta(key, concentration, concentration)
    return jnp.maximum(share, 1 - share)[None, None]


def around_box(key: Key[Array, ""], concentration: float, shape: tuple[int, int]) -> Float[Array, "Y X"]:
    """0 in a box with sides of sqrt(1 - l) of the image's, l ~ Beta, about a uniform place, cut off at the border; else 1."""
    key_share, key_centre = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.beta(key_share, concentration, concentration))
    centre = jax.random.randint(key_centre, (2,), 0, jnp.asarray(shape))
    inside = []
    for axis, size in enumerate(shape):
        half = (size * side).astype(jnp.int32) // 2
        away = jnp.arange(size) - centre[axis]
        inside.append((away >= -half) & (away < half))
    return 1.0 - (inside[0][:, None] & inside[1][None, :]).astype(jnp.float32)
