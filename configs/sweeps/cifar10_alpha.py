"""The alpha sweep on all of CIFAR-10, small enough for two CPU cores: softmax and relu at L = 16, 64 and 256, one epoch.

    python -m launch.sweep --config configs/sweeps/cifar10_alpha.py --workdir runs/cifar10_alpha

Needs cifar10 prepared by TFDS (configs/cifar10_tfds.py says how). 18 members, about an hour.
"""

from typing import Any

from configs.common import parse_arg
from configs.grid import constant, cross, product, seeds
from configs.scales import ALPHAS

EPOCH: dict[str, Any] = {"train.steps": 390, "train.warmup_steps": 39, "eval.steps": 195, "train.peak_lr": 2e-3}


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: seeds=N, data_dir."""
    a = parse_arg(arg, seeds=1, data_dir="")
    attention = [{"h": "softmax"}, *product(h=["relu"], alpha=ALPHAS)]
    vits = constant(product(patch=[8, 4, 2]), data_dir=a["data_dir"] or None, **EPOCH)
    return {"base": "configs/cifar10_tfds.py", "points": seeds(cross(vits, attention), a["seeds"])}
