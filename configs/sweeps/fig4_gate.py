"""Does a gate remove the need for L^-alpha (arXiv:2309.08586, Figure 4)? relu and relu2 over alpha, with and without one.

    python -m launch.sweep --config configs/sweeps/fig4_gate.py --workdir runs/fig4
    python -m launch.sweep --config configs/sweeps/fig4_gate.py:scale=tiny --workdir runs/fig4_tiny

The gate is that of gated attention units, one more projection of the block's input (arXiv:2202.10447). The paper's claims: the
best accuracy needs the scaling with or without it; it costs about 9.3 % more core-hours for S/8 with relu.
"""

from typing import Any

from configs.grid import cross, product, seeds
from configs.scales import ALPHAS, I21K, sweep_arg, three_lengths


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 60 members a seed."""
    a = sweep_arg(arg)
    attention = product(h=["relu", "relu2"], gate=["none", "gau"], alpha=ALPHAS)
    return {"points": seeds(cross(three_lengths(a["scale"], I21K), attention), a["seeds"])}
