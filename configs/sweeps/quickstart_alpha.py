"""The alpha sweep of arXiv:2309.08586, Figure 2, in small: which exponent alpha of L^-alpha is best, at two lengths L?

    python -m launch.sweep --config configs/sweeps/quickstart_alpha.py --workdir runs/grid

Patch 7 gives L = 16, patch 4 gives L = 49. 17 members in 5 packs.
"""

from typing import Any

from configs.common import parse_arg
from configs.grid import product

ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0)


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: seed."""
    seed = parse_arg(arg, seed=0)["seed"]
    return {
        "base": "configs/quickstart.py",
        "points": [
            *product(h=["softmax"], patch=[7], seed=[seed]),
            *product(h=["relu", "relu2"], alpha=ALPHAS, patch=[7], seed=[seed]),
            *product(h=["softmax"], patch=[4], seed=[seed]),
            *product(h=["relu"], alpha=ALPHAS, patch=[4], seed=[seed]),
        ],
    }
