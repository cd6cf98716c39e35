"""Every matrix of the network has its logical axes, and they are what their names say."""

import jax
import pytest

from vit_attn.models.axes import logical_axes
from vit_attn.spec.resolve import resolve
from vit_attn.train.saved import abstract_state

SIZES = {"embed": 65, "heads": 5, "mlp": 77, "classes": 11}  # no two equal, nor equal to 13 channels a head or 16 tokens
WHOLE = ("cls", "probe", "query_ln", "key_ln", "alpha")  # few numbers: not worth a collective


@pytest.mark.parametrize("gate", ["none", "gau", "linear", "mlp", "all_heads"])
@pytest.mark.parametrize("pool", ["gap", "tok", "map"])
def test_axes_have_the_sizes_of_their_names(gate, pool):
    model = {
        "variant": "mu/7",
        "width": SIZES["embed"],
        "heads": SIZES["heads"],
        "mlp_dim": SIZES["mlp"],
        "num_classes": SIZES["classes"],
        "image_size": 28,
        "pool": pool,
        "rep_size": True,
        "layer_scale": 0.1,
        "patch_norm": "tokens",
        "attention": {"h": "relu", "gate": gate, "qk_norm": "width", "alpha_learned": "head"},
    }
    state = abstract_state(resolve({"model": model}))
    for tree in (state.params, state.moments):
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
            axes = logical_axes("/".join(names), x.ndim, gate)
            assert len(axes) == x.ndim
            assert all(name is None or SIZES[name] == size for name, size in zip(axes, x.shape, strict=True)), names
            if x.ndim > 1 and not any(part in WHOLE for part in names):
                assert any(axes), f"{names} {x.shape} would lie whole on every device"
                assert len({*axes} - {None}) == len([name for name in axes if name])
