"""Does ReLU attention need qk-layernorm (arXiv:2309.08586, Figure 3)? relu and relu2 over alpha, with and without it.

    python -m launch.sweep --config configs/sweeps/fig3_qknorm.py --workdir runs/fig3
    python -m launch.sweep --config configs/sweeps/fig3_qknorm.py:scale=tiny --workdir runs/fig3_tiny

The paper's claim: no large effect for these models, which might change at scale.
"""

from typing import Any

from configs.grid import cross, product, seeds
from configs.scales import ALPHAS, I21K, sweep_arg, three_lengths


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 60 members a seed."""
    a = sweep_arg(arg)
    attention = product(h=["relu", "relu2"], qk_norm=["head", "none"], alpha=ALPHAS)
    return {"points": seeds(cross(three_lengths(a["scale"], I21K), attention), a["seeds"])}
