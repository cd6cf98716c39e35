"""The methods of arXiv:2306.12929 beside each other, each with and without patch LN, and attention without softmax beside them.

    python -m launch.sweep --config configs/sweeps/outlier_methods.py:scale=tiny,seeds=3 --workdir runs/outlier_methods

Table 7 (configs/sweeps/table7_vit.py) holds the paper's own rows, with other settings with patch LN than without; here each has
both.
"""

from typing import Any

from configs.grid import Point, constant, cross, product, seeds
from configs.scales import clipped, one_vit, sweep_arg


def methods(scale: str) -> list[Point]:
    """Softmax, clipped with three gammas, gated linear and mlp, and relu / L."""
    gated = product(h=["softmax"], gate=["linear", "mlp"], pi_init=[0.5])
    return [{"h": "softmax"}, *clipped([-0.001, -0.003, -0.004], scale), *gated, {"h": "relu", "alpha": 1.0}]


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 14 members a seed."""
    a = sweep_arg(arg)
    norms = constant(product(patch_norm=["none", "tokens"]), qk_norm="none")
    return {"points": seeds(cross(one_vit(a["scale"]), norms, methods(a["scale"])), a["seeds"])}
