"""Does attention without softmax learn fewer outliers? The forms of the first paper by the measures of the second.

    python -m launch.sweep --config configs/sweeps/alpha_outliers.py:scale=tiny,seeds=3 --workdir runs/alpha_outliers

L^-alpha * h for relu, sigmoid and identity at alpha 0.5, 1, 1.5, beside softmax, clipped softmax and gated attention, each with
and without qk-layernorm and patch LN. Beyond both papers: no expected outcome.
"""

from typing import Any

from configs.grid import cross, product, seeds
from configs.scales import clipped, one_vit, sweep_arg


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 48 members a seed."""
    a = sweep_arg(arg)
    pointwise = product(h=["relu", "sigmoid", "identity"], alpha=[0.5, 1.0, 1.5])
    gated = {"h": "softmax", "gate": "linear", "pi_init": 0.5}
    methods = [{"h": "softmax"}, *clipped([-0.003], a["scale"]), gated, *pointwise]
    norms = product(qk_norm=["none", "head"], patch_norm=["none", "tokens"])
    return {"points": seeds(cross(one_vit(a["scale"]), norms, methods), a["seeds"])}
