"""configs/vit_s16_i1k.py at a thousandth of its data, for tests.

python -m vit_attn.main --config configs/smoke/vit_s16_i1k.py:data_dir=DIR --workdir runs/smoke
"""

from ml_collections import ConfigDict

from configs.smoke.recipe import smoke


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: those of the recipe."""
    return smoke("vit_s16_i1k", arg)
