"""A recipe at a thousandth of its data and in a tiny size: everything else, from the files to the evaluators, is as it is."""

import importlib
from typing import Any

from ml_collections import ConfigDict

SHARE = 1000


def smoke(recipe: str, arg: str) -> ConfigDict:
    """One epoch of configs/`recipe`.py over a thousandth of the images. `arg` is the recipe's, but with mu/32 for a variant."""
    given = arg if "variant=" in arg else f"variant=mu/32,{arg}"
    if "aug=" not in given and recipe in ("vit_i1k", "vit_i21k"):
        given = f"{given},aug=light2"
    config: Any = importlib.import_module(f"configs.{recipe}").get_config(given)
    config.data.workers = 0
    if recipe == "vit_i21k":
        config.data.train_split, config.eval.split = "full[51:]", "full[25:51]"
        config.evals.test.data.split, config.evals.train_seen.data.split = "full[:25]", "full[51:76]"
    config.train.epochs = 1.0
    config.train.epoch_images //= SHARE
    config.train.batch_images = 64
    config.train.warmup_steps = 4
    config.eval.steps = 10
    config.eval.batch_images = 64
    config.loop = {"log_steps": 1, "ckpt_steps": 5}
    return config
