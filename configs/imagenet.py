"""What the ImageNet recipes share: arguments, augmentation by size, data sets, evaluators. Numbers: big_vision's configs."""

from typing import Any

from configs.common import ATTENTION, parse_arg

AUGREG = {  # level: (mixup p, RandAugment layers, magnitude), from arXiv:2106.10270, Figure 4
    "none": (0.0, 0, 0),
    "light1": (0.0, 2, 0),  # which still alters images
    "light2": (0.2, 2, 10),
    "medium1": (0.2, 2, 15),
    "medium2": (0.5, 2, 15),
    "strong1": (0.5, 2, 20),
    "strong2": (0.8, 2, 20),
}
I1K_TRAIN = 1_268_355  # images in train[:99%]
I21K_TRAIN = 14_145_922  # images in full[51200:], of 14,197,122


def recipe_arg(arg: str, **defaults: Any) -> dict[str, Any]:
    """The arguments that all recipes take, besides their own `defaults`."""
    common = {**ATTENTION, "aug": "", "data_dir": "", "seed": 0}
    return parse_arg(arg, **{"variant": "B/16", **common, **defaults})


def augmentation(level: str, levels: dict[str, str], variant: str) -> dict[str, Any]:
    """Settings of config.data for `level`, or for the level of `variant` in the recipe's table. Raises ValueError."""
    chosen = level or levels.get(variant)
    if chosen not in AUGREG:
        raise ValueError(
            f"no augmentation is known for variant={variant} with aug={level!r}: take aug from {', '.join(AUGREG)}"
        )
    mixup, layers, magnitude = AUGREG[chosen]
    return {"mixup": mixup, "randaug_layers": layers, "randaug_magnitude": float(magnitude)}


def big_vision_training(**own: Any) -> dict[str, Any]:
    """Adam with decoupled decay (0.1 in AdamW's terms), 10,000 steps of warm-up, cosine to 0."""
    return {"warmup_steps": 10_000, "peak_lr": 1e-3, "weight_decay": 1e-4, "clip_norm": 1.0, **own}


def imagenet2012(data_dir: str, **own: Any) -> dict[str, Any]:
    """config.data: ImageNet-1k without the last hundredth of its training images, Inception crops and flips."""
    return {
        "name": "imagenet2012",
        "data_dir": data_dir or None,
        "train_split": "train[:99%]",
        "crop": "inception",
        "flip": True,
        "workers": -1,
        **own,
    }


def i1k_evaluation(batch_images: int, steps: int = 2500) -> dict[str, Any]:
    """config.eval: the validation images, their smaller side at 256 pixels, and the central 224 of them."""
    return {
        "split": "validation",
        "steps": steps,
        "batch_images": batch_images,
        "resize": "small",
        "resize_pixels": 256,
        "resize_method": "area",
    }


def i1k_evaluators() -> dict[str, Any]:
    """config.evals: seen and held-out training images, ImageNet-V2, ReaL labels."""
    one: dict[str, Any] = {"type": "classification"}
    real = {"name": "imagenet2012_real", "split": "validation", "label_key": "real_label", "max_labels": 16}
    return {
        "train_seen": {**one, "data": {"split": "train[:2%]"}},
        "minival": {**one, "data": {"split": "train[99%:]"}},
        "v2": {**one, "data": {"name": "imagenet_v2/matched-frequency", "split": "test"}},
        "real": {**one, "data": real},
    }
