"""Who learns no outliers (arXiv:2306.12929, Table 7)? Vanilla, clipped softmax and gates, with and without patch LN.

    python -m launch.sweep --config configs/sweeps/table7_vit.py:seeds=3 --workdir runs/table7
    python -m launch.sweep --config configs/sweeps/table7_vit.py:scale=tiny,seeds=3 --workdir runs/table7_tiny

ViT-S/16, 300 epochs of ImageNet-1k. The paper's claims: without patch LN, INT8 costs vanilla 11.5 points of accuracy and the
others 1.4 to 1.9; with it, all lose 1.1 to 1.8. The paper does not say how many seeds; its tables have a spread.
"""

from typing import Any

from configs.grid import constant, cross, product, seeds
from configs.scales import clipped, one_vit, sweep_arg

VANILLA = {"h": "softmax"}


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 16 members a seed."""
    a = sweep_arg(arg)
    without = [VANILLA, *clipped([-0.003, -0.004], a["scale"]), *_gated(0.25, 0.5), {"h": "softmax", "gate": "mlp"}]
    gammas = [-0.0001, -0.0003, -0.0005, -0.001, -0.002, -0.003]
    with_norm = constant([VANILLA, *clipped(gammas, a["scale"]), *_gated(0.5, 0.75, 0.9)], patch_norm="tokens")
    return {"points": seeds(cross(one_vit(a["scale"]), [*constant(without, patch_norm="none"), *with_norm]), a["seeds"])}


def _gated(*pi_inits: float) -> list[dict[str, Any]]:
    return product(h=["softmax"], gate=["linear"], pi_init=pi_inits)
