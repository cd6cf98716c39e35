"""Outliers on all of CIFAR-10 after one epoch, on two CPU cores: the methods of arXiv:2306.12929 beside relu / L.

    python -m launch.sweep --config configs/sweeps/cifar10_outliers.py --workdir runs/cifar10_outliers

L = 64, without qk-layernorm, with and without patch LN. Needs cifar10 prepared by TFDS (configs/cifar10_tfds.py says how).
"""

from typing import Any

from configs.common import parse_arg
from configs.grid import constant, cross, product, seeds
from configs.sweeps.cifar10_alpha import EPOCH
from configs.sweeps.outlier_methods import methods


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: seeds=N, data_dir. 16 members a seed."""
    a = parse_arg(arg, seeds=1, data_dir="")
    vits = constant(product(patch_norm=["none", "tokens"]), patch=4, qk_norm="none", data_dir=a["data_dir"] or None, **EPOCH)
    points = cross(vits, [*methods("small"), {"h": "relu", "alpha": 0.5}])
    return {"base": "configs/cifar10_tfds.py", "points": seeds(points, a["seeds"])}
