"""How open a gate should start (arXiv:2306.12929, Figure 7b): the initial bias from -10 to 5, ViT-S/16, 150 epochs.

    python -m launch.sweep --config configs/sweeps/fig7_pi_init.py --workdir runs/fig7
    python -m launch.sweep --config configs/sweeps/fig7_pi_init.py:scale=tiny --workdir runs/fig7_tiny

pi_init is the sigmoid of the bias. The paper's claims: accuracy is flat from -2.5 to 2.5, outliers come back above 0. h =
softmax without a gate is its vanilla line.
"""

import math
from typing import Any

from configs.grid import constant, cross, product, seeds
from configs.scales import one_vit, sweep_arg

BIASES = (-10.0, -5.0, -2.5, -1.0, 0.0, 1.0, 2.5, 5.0)


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 9 members a seed."""
    a = sweep_arg(arg)
    vit = constant(one_vit("paper"), epochs=150.0) if a["scale"] == "paper" else one_vit(a["scale"])
    gates = product(gate=["linear"], pi_init=[round(1 / (1 + math.exp(-bias)), 6) for bias in BIASES])
    return {"points": seeds(cross(vit, [{"h": "softmax"}], [{"gate": "none"}, *gates]), a["seeds"])}
