"""W6A6: 6-bit weights, range by mse, and 6-bit activations (arXiv:2306.12929, section 5 and table 10).

python -m vit_attn.quantize --run runs/one --config configs/quant/w6a6.py
python -m vit_attn.quantize --run runs/one --config configs/quant/w6a6.py:estimators=all
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: estimators (one of running_min_max, min_max, percentile, mse, or all), batches, repeats."""
    a = parse_arg(arg, estimators="running_min_max", batches=16, repeats=3)
    return ConfigDict({**a, "weight_bits": 6, "activation_bits": 6, "weight_estimator": "mse"})
