"""A ViT on CIFAR-10, as the example for any data set that TFDS has prepared on this machine in array_record format.

    python -c "import tensorflow_datasets as tfds; tfds.builder('cifar10', file_format='array_record').download_and_prepare()"
    python -m vit_attn.main --config configs/cifar10_tfds.py --workdir runs/cifar10
    python -m vit_attn.main --config configs/cifar10_tfds.py:h=relu,alpha=1,variant=Ti/4,data_dir=/data/tfds --workdir runs/ti

The first line downloads 170 MB, once, into $TFDS_DATA_DIR or ~/tensorflow_datasets (elsewhere: data_dir='...' in both places).
For another set change the name, the splits, image_size and num_classes. L = 64. After one epoch
(configs/sweeps/cifar10_alpha.py): 0.40 with softmax, see RESULTS.md; the ten epochs below were not run.
"""

from ml_collections import ConfigDict

from configs.common import ATTENTION, attention, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: those of any attention (configs/common.py), patch_norm, patch (of the nano size) or variant (any),
    seed, data_dir."""
    a = parse_arg(arg, **ATTENTION, patch_norm="none", patch=4, variant="", seed=0, data_dir="")

    return ConfigDict(
        {
            "seed": a["seed"],
            "model": {
                "variant": a["variant"] or f"nano/{a['patch']}",
                "image_size": 32,
                "num_classes": 10,
                "patch_norm": a["patch_norm"],
                "attention": attention(a),
            },
            "data": {
                "name": "cifar10",
                "data_dir": a["data_dir"] or None,
                "train_split": "train",
                "crop_padding": 4,
                "flip": True,
            },
            "train": {
                "batch_images": 128,
                "steps": 3900,  # about 10 epochs
                "warmup_steps": 390,
                "peak_lr": 1e-3,
                "weight_decay": 1e-4,
            },
            "eval": {"split": "test", "steps": 390, "batch_images": 500},
            "loop": {"log_steps": 50, "ckpt_steps": 390},
        }
    )
