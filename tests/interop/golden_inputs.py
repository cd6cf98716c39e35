"""What big_vision and we are both given: parameters by name, images and labels, from numpy's generator. No jax in here."""

from itertools import product

import numpy as np

SIDE, CLASSES, BATCH = 24, 7, 5
SIZES = {"variant": "mu/8", "depth": 2}  # 9 patches, width 32, 2 heads
CASES = {
    f"{pool}-{posemb}-{'rep' if rep else 'plain'}": {"pool": pool, "posemb": posemb, "rep_size": rep}
    for pool, posemb, rep in product(("gap", "tok", "map"), ("learn", "sincos2d"), (False, True))
}
STEPS, TOTAL_STEPS, WARMUP_STEPS = 5, 9, 2
LOSSES = ("softmax_xent", "sigmoid_xent")
MEASURED = {"training_loss": "loss", "l2_grads": "l2_grads", "l2_updates": "l2_updates", "l2_params": "l2_params"}


def parameters(shapes):
    """{"head/kernel": array, ...} for {"head/kernel": shape, ...}: nothing is zero, scales are about 1."""
    rng = np.random.default_rng(11)
    found = {}
    for name in sorted(shapes):
        noise = rng.normal(size=shapes[name])
        value = 1 + 0.3 * noise if name.endswith("scale") else 0.15 * noise if name.endswith("kernel") else 0.3 * noise
        found[name] = value.astype(np.float32)
    return found


def images_and_labels(seed):
    """Bytes [BATCH, SIDE, SIDE, 3] and one class an image."""
    rng = np.random.default_rng([13, seed])
    return rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8), rng.integers(0, CLASSES, BATCH)


def as_floats(images):
    """[-1, 1]."""
    return (images.astype(np.float64) / 127.5 - 1).astype(np.float32)


def projections(flat):
    """One number a parameter array, in the order of their names: its product with fixed noise of length 1, in float64."""
    found = {}
    for index, name in enumerate(sorted(flat)):
        noise = np.random.default_rng([17, index]).normal(size=flat[name].shape)
        found[name] = float(np.sum(np.asarray(flat[name], np.float64) * noise) / np.linalg.norm(noise))
    return found
