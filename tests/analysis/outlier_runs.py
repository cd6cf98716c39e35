"""Small networks, images and run directories for the tests of the outlier analysis."""

from dataclasses import asdict, replace
from functools import cache

import jax
import numpy as np

from vit_attn.models.points import COLLECTION
from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import LoopSpec, knobs_of
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.run_dir import RunDir
from vit_attn.train.state import init_state

SIDE, DEPTH, HEADS, WIDTH = 4, 3, 2, 22  # patches of 7 pixels
SIZES = {"variant": "mu/7", "image_size": 28, "num_classes": 10, "depth": DEPTH, "heads": HEADS, "width": WIDTH, "mlp_dim": 13}
PLAIN = {"pool": "gap", "attention": {"h": "softmax", "qk_norm": "none"}}
GATED = {"pool": "tok", "attention": {"h": "softmax", "qk_norm": "none", "gate": "linear", "pi_init": 0.3}}
RELU = {
    "pool": "tok",
    "scan_layers": True,
    "patch_norm": "patches",
    "attention": {"h": "relu", "alpha": 0.8, "qk_norm": "head"},
}


def spec_of(model, **others):
    return resolve({"model": {**SIZES, **model}, "seed": others.pop("seed", 0), **others})


def params_of(spec, seed=0, noise=0.15):
    """As initialised, with noise on all of them."""
    params = jax.device_get(jax.jit(lambda: init_state(spec, knobs_of(spec)))().params)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.array(x + noise * rng.standard_normal(x.shape), np.float32), params)


def plant_tokens(params, patches, dim, value):
    """A channel that sticks out of the residual stream at some patches, from the first block to the last."""
    params["pos_embedding"][0, list(patches), dim] += value
    return params


def pixels(images, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (images, 28, 28, 3), dtype=np.uint8)


def batches_of(images, size):
    """`size` at a time; what fills up the last batch is noise that must not count."""
    for start in range(0, len(images), size):
        real = images[start : start + size]
        noise = pixels(size - len(real), seed=9)
        yield {"image": np.concatenate([real, noise]), "mask": np.float32([1] * len(real) + [0] * len(noise))}


def captured(spec, params, images):
    """All that stands at the points of the blocks, and behind the last one, in float64; and the logits."""
    (logits, _), found = points_of(replace(spec.model, scan_layers=False))(params, images, knobs_of(spec).attention)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), found[COLLECTION]["Transformer"]), np.asarray(logits)


@cache
def points_of(model):
    network = ViT(model)
    return jax.jit(
        lambda params, images, numbers: network.apply({"params": params}, normalize(images), numbers, mutable=[COLLECTION])
    )


def save_run(path, spec, params, state="done", accuracy=0.5, step=7):
    """The directory of a run with one checkpoint."""
    run_dir = RunDir(path)
    run_dir.create(spec)
    checkpoints = Checkpoints(run_dir, LoopSpec())
    whole = jax.jit(lambda: init_state(spec, knobs_of(spec)))()._replace(params=params)
    checkpoints.save(step, whole, {"config": asdict(spec), "step": step})
    checkpoints.wait()
    checkpoints.close()
    run_dir.write_status(state, step=step, steps=step, metrics={"val/accuracy": accuracy, "speed/core_hours": 2 * accuracy})
    return run_dir
