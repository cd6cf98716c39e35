"""From which width, depth, length or training time on does softmax learn outliers? One of them changed at a time.

    python -m launch.sweep --config configs/sweeps/outliers_onset.py --workdir runs/outliers_onset

On the embedded images, without qk-layernorm, from nano/4 (width 64, 3 blocks, L = 49) after 150 steps.
"""

from typing import Any

from configs.common import parse_arg
from configs.grid import constant, cross, product, seeds
from configs.scales import TINY, lasting


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: seeds=N. 9 members a seed."""
    a = parse_arg(arg, seeds=1)
    softmax = constant([TINY], h="softmax", qk_norm="none")
    lengths_and_widths = product(variant=["nano/14", "nano/7", "nano/4", "nano/2", "mu/4", "Ti/4"])
    times = constant(lasting(600, 1500, 3000), variant="nano/4")
    return {"points": seeds(cross(softmax, [*lengths_and_widths, *times]), a["seeds"])}
