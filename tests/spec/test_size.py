"""Parameters and bytes by formula against the shapes that the model makes, and a checkpoint against its folder."""

import math

import jax
import pytest

from vit_attn.spec.resolve import resolve
from vit_attn.spec.size import checkpoint_bytes, parameter_count
from vit_attn.train.saved import abstract_state

SIZES = {"width": 28, "depth": 2, "mlp_dim": 17, "heads": 7, "patch": 5, "image_size": 15, "num_classes": 11}
ATTENTION = {
    "softmax": {},
    "bias": {"qk_norm": "width", "qk_norm_bias": True},
    "bare": {"qk_norm": "none", "gate": "gau"},
    "linear": {"gate": "linear", "qk_norm_scale": False},
    "mlp": {"gate": "mlp", "n_hid": 3},
    "all_heads": {"gate": "all_heads", "h": "relu", "alpha_learned": "head"},
    "learned": {"h": "relu", "alpha_learned": "layer"},
}
MODELS = [
    *({"attention": attention, "pool": pool} for attention in ATTENTION.values() for pool in ("gap", "tok", "map")),
    {"rep_size": True, "posemb": "sincos2d", "patch_norm": "tokens"},
    {"layer_scale": 0.1, "patch_norm": "patches", "scan_layers": True},
    {"variant": "B/16", "width": 0, "depth": 0, "mlp_dim": 0, "heads": 0, "patch": 0, "image_size": 224},
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_the_formulas_are_what_a_state_has(model):
    for dtype in ("float32", "bfloat16") if "variant" in model else ("bfloat16",):
        spec = resolve({"model": {**SIZES, **model}, "train": {"adam_mu_dtype": dtype}})
        state = abstract_state(spec)
        assert parameter_count(spec.model) == sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
        saved = sum(x.dtype.itemsize * x.size for x in jax.tree.leaves((state.params, state.moments)) if x.ndim)
        scalars = 100  # alphas of single layers, a counter
        assert saved <= checkpoint_bytes(spec) <= saved + scalars
