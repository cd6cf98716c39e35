"""A trained run for a notebook: its parameters, and a function of images.

run = load_run("runs/one")
logits = run.predict(images_uint8)
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, knobs_of
from vit_attn.store.run_dir import RunDir
from vit_attn.train.saved import saved_params


@dataclass(frozen=True)
class LoadedRun:
    """`params` as they were after `step` updates."""

    spec: RunSpec
    step: int
    params: Any

    @property
    def model(self) -> ViT:
        """The network: run.model.apply({"params": run.params}, pixels, knobs_of(run.spec).attention), pixels in [-1, 1]."""
        return network(self.spec)

    def predict(self, images: Any) -> Float[np.ndarray, "B classes"]:
        """Logits of images [B, Y, X, 3]: bytes, or numbers in [-1, 1]. Compiled once a B. ValueError for other shapes."""
        images, side = np.asarray(images), self.spec.model.image_size
        if images.ndim != 4 or images.shape[1:] != (side, side, 3):
            raise ValueError(f"images are {list(images.shape)}, and this run takes [any number, {side}, {side}, 3]")
        return np.asarray(self._compiled(self.params, check_pixels(images)))

    @cached_property
    def _compiled(self) -> Any:
        return jax.jit(lambda params, images: forward(self.spec, params, images))


def load_run(path: str | Path, member: str | None = None, step: int | None = None) -> LoadedRun:
    """The run in a directory, or the `member` of a sweep's: its newest good checkpoint, or the one of `step`. Changes nothing.

    Raises UserError where there is no run, no such member, or no checkpoint that can be read.
    """
    run_dir = RunDir(Path(path) if member is None else Path(path) / member)
    spec = run_dir.spec()
    if spec is None:
        members = sorted(config.parent.name for config in Path(path).glob("*/config.json"))
        hint = f"; it is a directory of runs: member is one of {', '.join(members)}" if members else ""
        raise UserError(f"{run_dir.path} is not the directory of a run: it has no config.json{hint}")
    found, params = saved_params(run_dir, spec, step)
    return LoadedRun(spec, found, params)


def network(spec: RunSpec, impl: str = "auto") -> ViT:
    """`impl`: of attention, whatever the run was trained with."""
    model: ModelSpec = replace(spec.model, attention=replace(spec.model.attention, impl=impl))
    return ViT(model)


def forward(spec: RunSpec, params: Any, images: Array, impl: str = "auto") -> Float[Array, "B classes"]:
    """Logits; `images` as `check_pixels` gives them."""
    pixels = normalize(images) if images.dtype == jnp.uint8 else images
    logits, _ = network(spec, impl).apply({"params": params}, pixels, knobs_of(spec).attention)
    return logits


def check_pixels(images: np.ndarray) -> np.ndarray:
    """uint8 as it is, floating point in float32. ValueError for other types: what they mean is not known."""
    if images.dtype == np.uint8:
        return images
    if np.issubdtype(images.dtype, np.floating):
        return images.astype(np.float32)
    raise ValueError(f"images are {images.dtype}: bytes (uint8), or floating point in [-1, 1], are needed")
