"""A ViT on ImageNet-1k, 300 epochs: the i1k experiments of arXiv:2309.08586, on big_vision's vit_i1k.py.

    python -m vit_attn.main --config configs/vit_i1k.py:variant=S/16,h=relu,alpha=1 --workdir runs/i1k_s16_relu

92,897 steps of 4096 images. CLS token, sigmoid loss, a tanh layer before the head; qk-layernorm, as the paper has it. S/8 gets
the augmentation of S/16: the paper is silent, and big_vision's table has no S/8. Cost: 300 epochs are 3.8e8 images; with S/16
at 4.6 GMAC an image that is 1.1e19 FLOP, about 60 TPU v5e core-hours at 25 % of the peak. Not run yet: no expected accuracy.
Needs imagenet2012, imagenet_v2 and imagenet2012_real prepared by TFDS (README, "ImageNet").
"""

from ml_collections import ConfigDict

from configs.common import attention
from configs.imagenet import (
    I1K_TRAIN,
    augmentation,
    big_vision_training,
    i1k_evaluation,
    i1k_evaluators,
    imagenet2012,
    recipe_arg,
)

LEVELS = {
    "Ti/16": "light1",
    "S/32": "medium1",
    "S/16": "medium2",
    "S/8": "medium2",
    "B/32": "medium2",
    "B/16": "medium2",
    "L/16": "medium2",
}


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: variant, those of any attention (configs/common.py), aug (a level of augreg; by default that of the
    variant), data_dir, seed."""
    a = recipe_arg(arg)

    return ConfigDict(
        {
            "seed": a["seed"],
            "model": {
                "variant": a["variant"],
                "num_classes": 1000,
                "pool": "tok",
                "posemb": "learn",
                "rep_size": True,
                "head_bias": -6.9,
                "attention": attention(a),
            },
            "data": imagenet2012(a["data_dir"], **augmentation(a["aug"], LEVELS, a["variant"])),
            "train": big_vision_training(loss="sigmoid_xent", batch_images=4096, epochs=300.0, epoch_images=I1K_TRAIN),
            "eval": i1k_evaluation(batch_images=4096),
            "evals": i1k_evaluators(),
            "loop": {"log_steps": 50, "ckpt_steps": 1000},
        }
    )
