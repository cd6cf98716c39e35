"""A ViT on ImageNet-21k, 30 epochs: the i21k experiments of arXiv:2309.08586, on big_vision's vit_i21k.py.

    python -m vit_attn.main --config configs/vit_i21k.py:variant=S/16,h=relu,alpha=1 --workdir runs/i21k_s16_relu

103,608 steps of 4096 images. Mean over the tokens, sigmoid loss with a head that starts at -10; qk-layernorm, as the paper has
it. S/8 gets the augmentation of S/16: the paper is silent, and big_vision's table has no S/8. big_vision's own default is 300
epochs (epochs=300). Cost: 4.2e8 images; with S/16 1.2e19 FLOP, about 65 TPU v5e core-hours at 25 % of the peak. Not run yet: no
expected accuracy. Needs imagenet21k and imagenet2012 prepared by TFDS, and those of the eight few-shot sets that are to count
(README, "ImageNet"). ImageNet-1k accuracy is that of the i1k classes among the head's.
"""

from ml_collections import ConfigDict

from configs.common import attention
from configs.imagenet import I21K_TRAIN, augmentation, big_vision_training, i1k_evaluation, recipe_arg

LEVELS = {
    "Ti/16": "none",
    "S/32": "none",
    "S/16": "light1",
    "S/8": "light1",
    "B/32": "light2",
    "B/16": "light2",
    "L/16": "medium2",
}


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: variant, those of any attention (configs/common.py), aug (a level of augreg; by default that of the variant),
    epochs, data_dir, seed; ids: a file with the WordNet ids of the head's classes, where TFDS has no names for the labels."""
    a = recipe_arg(arg, epochs=30.0, ids="")

    return ConfigDict(
        {
            "seed": a["seed"],
            "model": {
                "variant": a["variant"],
                "num_classes": 21_843,
                "pool": "gap",
                "posemb": "learn",
                "head_bias": -10.0,
                "attention": attention(a),
            },
            "data": {
                "name": "imagenet21k",
                "data_dir": a["data_dir"] or None,
                "train_split": "full[51200:]",
                "crop": "inception",
                "flip": True,
                "workers": -1,
                **augmentation(a["aug"], LEVELS, a["variant"]),
            },
            "train": big_vision_training(loss="sigmoid_xent", batch_images=4096, epochs=a["epochs"], epoch_images=I21K_TRAIN),
            "eval": i1k_evaluation(batch_images=4096, steps=5000) | {"split": "full[25600:51200]"},
            "evals": {
                "test": {"type": "classification", "data": {"split": "full[:25600]"}},
                "train_seen": {"type": "classification", "data": {"split": "full[51200:76800]"}},
                "i1k": {
                    "type": "label_subset",
                    "head_ids": a["ids"] or None,
                    "data": {"name": "imagenet2012", "split": "validation"},
                },
                "fewshot": {"type": "fewshot", "steps": 25_000},
            },
            "loop": {"log_steps": 50, "ckpt_steps": 1000},
        }
    )
