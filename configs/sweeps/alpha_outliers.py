"""Does attention without softmax learn fewer outliers? The forms of the first paper by the measures of the second.

    python -m launch.sweep --config configs/sweeps/alpha_outliers.py:scale=tiny,seeds=3 --workdir runs/alpha_outliers

L^-alpha * h for relu, sigmoid and identity at alpha 0.5, 1, 1.5, beside softmax, clipped softmax and gated attention, each with
and without qk-layernorm and patch LN. Beyond both papers: no expected outcome. scale=paper: S/16 trained as arXiv:2309.08586
trains on ImageNet-1k (configs/vit_i1k.py).
"""

from typing import Any

from configs.grid import cross, product, seeds
from configs.scales import I1K, clipped, one_vit, sweep_arg


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 48 members a seed."""
    a = sweep_arg(arg)
    pointwise = product(h=["relu", "sigmoid", "identity"], alpha=[0.5, 1.0, 1.5])
    gated = {"h": "softmax", "gate": "linear", "pi_init": 0.5}
    methods = [{"h": "softmax"}, *clipped([-0.003], a["scale"]), gated, *pointwise]
    paper = a["scale"] == "paper"
    base = product(base=[I1K], variant=["S/16"]) if paper else one_vit(a["scale"])
    norms = product(qk_norm=["none", "head"], **{"model.patch_norm" if paper else "patch_norm": ["none", "tokens"]})
    return {"points": seeds(cross(base, norms, methods), a["seeds"])}
