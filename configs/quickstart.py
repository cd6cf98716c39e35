"""A small ViT on the images inside the package: nothing to download, a minute on a laptop.

    python -m vit_attn.main --config configs/quickstart.py --workdir runs/one
    python -m vit_attn.main --config configs/quickstart.py:h=relu2,alpha=1,patch=4 --workdir runs/two

Fashion-MNIST, 10,000 + 2,000 images. Recipe: big_vision's (facts of arXiv:2309.08586, section 4) shrunk to 28 pixels.
"""

from ml_collections import ConfigDict

from configs.common import ATTENTION, attention, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: those of any attention (configs/common.py), patch_norm, patch (of the nano size) or variant (any), seed."""
    a = parse_arg(arg, **ATTENTION, patch_norm="none", patch=7, variant="", seed=0)
    variant = a["variant"] or f"nano/{a['patch']}"
    image_size = 32 if variant.endswith(("/8", "/16", "/32")) else 28

    return ConfigDict(
        {
            "seed": a["seed"],
            "model": {
                "variant": variant,
                "image_size": image_size,
                "num_classes": 10,
                "patch_norm": a["patch_norm"],
                "attention": attention(a),
            },
            "data": {"name": "fashion_mnist_12k", "crop_padding": 0, "flip": False},  # 3 epochs need no augmentation
            "train": {
                "batch_images": 128,
                "steps": 250,
                "warmup_steps": 25,
                "peak_lr": 2e-3,
                "weight_decay": 1e-4,
            },
            "eval": {"split": "validation", "steps": 125, "batch_images": 512},
            "loop": {"log_steps": 10, "ckpt_steps": 100},
        }
    )
