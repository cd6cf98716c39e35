"""How far to stretch clipped softmax (arXiv:2306.12929, Table 8): gamma and zeta on ViT-S/16 without patch LN, 150 epochs.

    python -m launch.sweep --config configs/sweeps/table8_gamma_zeta.py:seeds=2 --workdir runs/table8
    python -m launch.sweep --config configs/sweeps/table8_gamma_zeta.py:scale=tiny --workdir runs/table8_tiny

The paper's claims: zeta > 1 alone changes nothing; gamma = -0.003 removes the outliers; -0.03 costs accuracy.
"""

from typing import Any

from configs.grid import constant, cross, seeds, zipped
from configs.scales import clipped, one_vit, sweep_arg

GAMMAS = [0.0] * 5 + [-0.00001, -0.0001, -0.001, -0.003, -0.01, -0.03, -0.001, -0.003]
ZETAS = [1.0, 1.001, 1.002, 1.004, 1.01] + [1.0] * 6 + [1.001, 1.003]


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 13 members a seed."""
    a = sweep_arg(arg)
    vit = constant(one_vit("paper"), epochs=150.0) if a["scale"] == "paper" else one_vit(a["scale"])
    stretches = [{**one, **other} for one, other in zip(clipped(GAMMAS, a["scale"]), zipped(zeta=ZETAS), strict=True)]
    return {"points": seeds(cross(vit, stretches), a["seeds"])}
