"""Does the best alpha move as training goes on? relu / L^alpha and softmax at L = 49, trained for 150, 600 and 1,500 steps.

    python -m launch.sweep --config configs/sweeps/alpha_time.py --workdir runs/alpha_time

On the embedded images. Each length of training has its own cosine schedule, so a longer one is not a shorter one continued.
"""

from typing import Any

from configs.common import parse_arg
from configs.grid import constant, cross, product, seeds
from configs.scales import ALPHAS, TINY, lasting


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: seeds=N. 18 members a seed."""
    a = parse_arg(arg, seeds=1)
    attention = [{"h": "softmax"}, *product(h=["relu"], alpha=ALPHAS)]
    vits = cross(constant([TINY], patch=4), lasting(150, 600, 1500))
    return {"points": seeds(cross(vits, attention), a["seeds"])}
