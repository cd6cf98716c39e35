"""What a paper's grid is laid over at each scale: recipes, sizes of model and steps.

paper: ImageNet, as in the papers. small: CIFAR-10, for one accelerator. tiny: the embedded images, for a laptop's CPU.
"""

from typing import Any

from configs.common import parse_arg
from configs.grid import Point, constant, product, zipped

I21K, I1K, QUANT = "configs/vit_i21k.py", "configs/vit_i1k.py", "configs/vit_s16_quant.py"
SMALL: Point = {
    "base": "configs/cifar10_tfds.py",
    "train.batch_images": 512,
    "train.steps": 9766,  # 100 epochs
    "train.warmup_steps": 977,
    "eval.steps": 1953,
}
TINY: Point = {"base": "configs/quickstart.py", "train.steps": 150, "train.warmup_steps": 15, "eval.steps": 75}
ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0)  # the ticks of the paper's figures; its own grid is not known


def sweep_arg(arg: str) -> dict[str, Any]:
    """The arguments of a paper's grid: scale=paper|small|tiny, seeds=N."""
    a = parse_arg(arg, scale="paper", seeds=1)
    if a["scale"] not in ("paper", "small", "tiny"):
        raise ValueError(f"argument scale={a['scale']!r} must be one of paper, small, tiny")
    return a


def three_lengths(scale: str, *recipes: str) -> list[Point]:
    """One size at three sequence lengths L: 49, 196, 784 (paper), 16, 64, 256 (small), 4, 16, 49 (tiny)."""
    if scale == "paper":
        return product(base=recipes, variant=["S/32", "S/16", "S/8"])
    if scale == "small":
        return constant(product(variant=["Ti/8", "Ti/4", "Ti/2"]), **SMALL)
    return constant(product(patch=[14, 7, 4]), **TINY)


def five_sizes(scale: str, recipe: str) -> list[Point]:
    """Five models of growing cost: those of arXiv:2309.08586, Figure 1 (paper)."""
    if scale == "paper":
        return product(base=[recipe], variant=["S/32", "S/16", "B/32", "B/16", "L/16"])
    if scale == "small":
        return constant(product(variant=["Ti/8", "S/8", "Ti/4", "S/4", "B/4"]), **SMALL)
    return constant(product(variant=["mu/14", "nano/14", "mu/7", "nano/7", "nano/4"]), **TINY)


def one_vit(scale: str) -> list[Point]:
    """ViT-S/16 of arXiv:2306.12929 (paper), Ti/4 (small), nano/4 (tiny), all without qk-layernorm."""
    if scale == "paper":
        return product(base=[QUANT])
    if scale == "small":
        return constant([SMALL], variant="Ti/4", qk_norm="none")
    return constant([TINY], variant="nano/4", qk_norm="none")


def lasting(*steps: int) -> list[Point]:
    """Trainings of so many steps each, a tenth of them warmup, with one evaluation at half time and one at the end."""
    return zipped(
        **{"train.steps": steps, "train.warmup_steps": [n // 10 for n in steps], "eval.steps": [n // 2 for n in steps]}
    )


def clipped(gammas: list[float], scale: str) -> list[Point]:
    """Clipped softmax: the paper's gammas, or at other lengths L than its 197 those that clip the same multiple of 1/L."""
    if scale == "paper":
        return product(h=["clipped_softmax"], gamma=gammas)
    return product(h=["clipped_softmax"], gamma_per_length=[round(abs(gamma) * 197, 5) for gamma in gammas])
