"""Parameters by their paths: {"Transformer/encoder_norm/scale": array, ...}; which of them do not fit a model."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from vit_attn.models.posemb import sincos2d
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec
from vit_attn.train.saved import abstract_state

Flat = dict[str, Float[np.ndarray, "..."]]
MOST_NAMES = 12  # in one list of an error


def flattened(params: Any) -> Flat:
    """Nested dictionaries of arrays -> arrays on the host, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(params))[0]
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def fitted(spec: RunSpec, flat: Flat, source: str) -> Flat:
    """The parameters that the model has, out of `flat`. UserError with what is missing, too much, or of another shape.

    What is too much and changes nothing (see `is_neutral`) is left out.
    """
    leaves = jax.tree_util.tree_flatten_with_path(abstract_state(spec).params)[0]
    wanted = {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}
    missing = [name for name in wanted if name not in flat]
    extra = [name for name, value in flat.items() if name not in wanted and not is_neutral(spec.model, name, value)]
    other = [
        f"{name} {list(flat[name].shape)} for {list(shape)}"
        for name, shape in wanted.items()
        if name in flat and flat[name].shape != shape
    ]
    lists = {"missing": missing, "extra": extra, "of another shape": other}
    if found := [f"{what}: {listed(names)}" for what, names in lists.items() if names]:
        raise UserError(f"{source} does not fit the model of the config: {'; '.join(found)}")
    return {name: flat[name] for name in wanted}


def is_neutral(model: ModelSpec, name: str, value: Float[np.ndarray, "..."]) -> bool:
    """Whether a model without this parameter computes the same: a qk-layernorm's scale of ones or bias of zeros, or
    positions that are the sines and cosines which the model has anyway."""
    *_, owner, last = ("", *name.split("/"))
    if owner in ("query_ln", "key_ln") and model.attention.qk_norm != "none":
        return bool(np.all(value == (1.0 if last == "scale" else 0.0)))
    if name == "pos_embedding" and model.posemb == "sincos2d":
        side = model.image_size // model.patch
        fixed = np.asarray(sincos2d(side, side, model.width))
        return value.shape == fixed.shape and bool(np.allclose(value, fixed, rtol=0, atol=1e-6))
    return False


def listed(names: Iterable[str]) -> str:
    """ "a, b, c" in the order of the alphabet, cut short after MOST_NAMES."""
    names = sorted(names, key=str.lower)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
