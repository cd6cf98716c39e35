"""The simple ViT-S/16 baseline on ImageNet-1k, 90 epochs (arXiv:2205.01580; big_vision's vit_s16_i1k.py), with any attention.

    python -m vit_attn.main --config configs/vit_s16_i1k.py:h=relu,alpha=1 --workdir runs/s16_relu
    python -m vit_attn.main --config configs/vit_s16_i1k.py:qk_norm=none --workdir runs/s16    # as big_vision has it

111,477 steps of 1024 images. Mean over the tokens, fixed sines and cosines as positions, softmax loss, RandAugment(2, 10),
mixup 0.2, a tanh layer before the head. big_vision reports 76.5 % for softmax without qk-layernorm (300 epochs: 80 %); ours was
not run yet. Cost: 1.1e8 images, 3.2e18 FLOP, about 18 TPU v5e core-hours at 25 % of the peak.
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


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: variant, those of any attention (configs/common.py), aug (a level of augreg; light2 by default), epochs,
    data_dir, seed."""
    a = recipe_arg(arg, variant="S/16", epochs=90.0)

    return ConfigDict(
        {
            "seed": a["seed"],
            "model": {
                "variant": a["variant"],
                "num_classes": 1000,
                "pool": "gap",
                "posemb": "sincos2d",
                "rep_size": True,
                "attention": attention(a),
            },
            "data": imagenet2012(a["data_dir"], **augmentation(a["aug"] or "light2", {}, a["variant"])),
            "train": big_vision_training(loss="softmax_xent", batch_images=1024, epochs=a["epochs"], epoch_images=I1K_TRAIN),
            "eval": i1k_evaluation(batch_images=1024),
            "evals": i1k_evaluators(),
            "loop": {"log_steps": 50, "ckpt_steps": 1000},
        }
    )
