"""Accuracy against compute, softmax and relu/L (arXiv:2309.08586, Figure 1): five sizes on ImageNet-21k, 30 epochs.

    python -m launch.sweep --config configs/sweeps/fig1_scaling.py --workdir runs/fig1
    python -m launch.sweep --config configs/sweeps/fig1_scaling.py:scale=tiny,seeds=3 --workdir runs/fig1_tiny

The paper's claim: relu/L approaches or matches the scaling of softmax.
"""

from typing import Any

from configs.grid import Point, cross, seeds
from configs.scales import I21K, five_sizes, sweep_arg


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 10 members a seed."""
    a = sweep_arg(arg)
    attention: list[Point] = [{"h": "softmax"}, {"h": "relu", "alpha": 1.0}]
    return {"points": seeds(cross(five_sizes(a["scale"], I21K), attention), a["seeds"])}
