"""Clipped softmax with gamma = -c / L (arXiv:2306.12929, Figure 6): does one c serve every length L?

    python -m launch.sweep --config configs/sweeps/fig6_gamma_length.py --workdir runs/fig6
    python -m launch.sweep --config configs/sweeps/fig6_gamma_length.py:scale=tiny --workdir runs/fig6_tiny

The paper has BERT with 32 to 256 tokens, here the length comes from the patch side. Its claim: c from 2 to 4 removes the
outliers at all lengths and costs no accuracy. h = softmax is its vanilla row.
"""

from typing import Any

from configs.grid import constant, cross, product, seeds
from configs.scales import QUANT, sweep_arg, three_lengths


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 21 members a seed."""
    a = sweep_arg(arg)
    attention = [{"h": "softmax"}, *product(h=["clipped_softmax"], gamma_per_length=[0.25, 0.5, 1.0, 2.0, 4.0, 8.0])]
    vits = constant(three_lengths(a["scale"], QUANT), qk_norm="none")
    return {"points": seeds(cross(vits, attention), a["seeds"])}
