"""Low-bit quantization (arXiv:2306.12929, Table 10): members to quantize at W8A8, W6A8, W4A8 and W6A6.

    python -m launch.sweep --config configs/sweeps/table10_lowbit.py:scale=tiny,seeds=3 --workdir runs/table10_tiny

Vanilla, clipped softmax and gated attention: of ViT the paper's best without patch LN (Table 7); its table has BERT. Its claim:
vanilla's perplexity is lost at 8 bits with min-max ranges, the others degrade slowly.
"""

from typing import Any

from configs.grid import cross, seeds
from configs.scales import clipped, one_vit, sweep_arg


def get_sweep(arg: str = "") -> dict[str, Any]:
    """Arguments: scale=paper|small|tiny, seeds=N. 3 members a seed."""
    a = sweep_arg(arg)
    gated = {"h": "softmax", "gate": "linear", "pi_init": 0.25}
    methods = [{"h": "softmax"}, *clipped([-0.003], a["scale"]), gated]
    return {"points": seeds(cross(one_vit(a["scale"]), methods), a["seeds"])}
