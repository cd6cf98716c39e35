"""Which exponent alpha of L^-alpha is best, for each h (arXiv:2309.08586, Figure 2)? Three lengths L, ImageNet-21k and -1k.

    python -m launch.sweep --config configs/sweeps/fig2_alpha.py --workdir runs/fig2
    python -m launch.sweep --config configs/sweeps/fig2_alpha.py:scale=tiny,seeds=3 --workdir runs/fig2_tiny

The paper's claims: the best alpha is close to 1, and there no h is clearly best.
"""

from typing import Any

from configs.grid import cross, product, seeds
from configs.scales import ALPHAS, I1K, I21K, sweep_arg, three_lengths

POINTWISE = ("relu", "relu2", "gelu", "softplus", "identity", "relu6", "sigmoid")


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 36 members a length, a seed and, at scale=paper, a data set."""
    a = sweep_arg(arg)
    attention = [{"h": "softmax"}, *product(h=POINTWISE, alpha=ALPHAS)]
    return {"points": seeds(cross(three_lengths(a["scale"], I21K, I1K), attention), a["seeds"])}
