"""What is measured besides the loss. Every default lives here, once.

config.eval is the validation split of every run. config.evals adds evaluators, each under a name that its metrics begin with:
{"real": {"type": "classification", "data": {"name": "imagenet2012_real", ...}}}.
"""

from dataclasses import dataclass
from typing import Any

from vit_attn.spec.data import SetSpec
from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.setting import setting

FEWSHOT_SETS = (  # the eight of arXiv:2309.08586, section 4
    "caltech_birds2011",
    "caltech101",
    "cars196",
    "cifar100",
    "dtd",
    "colorectal_histology",
    "oxford_iiit_pet",
    "uc_merced",
)


@dataclass(frozen=True)
class EvalSpec:
    """The validation split, and how evaluation sees images: resized, then the centre cut out. Every image counts once."""

    split: str = "validation"
    steps: int = setting(0, at_least=0)  # every so many steps and at the end; 0: only at the end
    batch_images: int = setting(1000, at_least=1)
    resize: str = setting("square", choices=("square", "small"))  # both sides to resize_pixels, or the smaller one
    resize_pixels: int = setting(0, at_least=0)  # 0: image_size for square, 256/224 of it for small
    resize_method: str = setting("bilinear", choices=("bilinear", "area"))


@dataclass(frozen=True)
class ClassificationSpec:
    """Top-1, top-5 and loss on another split or data set. An image counts if it has a label; any of its labels is a hit."""

    type: str = "classification"
    data: SetSpec = SetSpec()
    steps: int | None = setting(None, at_least=0)  # None: config.eval.steps


@dataclass(frozen=True)
class LabelSubsetSpec:
    """Accuracy on a data set whose classes are a part of the head's (arXiv:2309.08586: ImageNet-1k by an ImageNet-21k head).

    Classes are matched by their WordNet ids, one a line in the order of the labels: in the files given here, or else in the
    names of the labels that TFDS has for the data set.
    """

    type: str = "label_subset"
    data: SetSpec = SetSpec()
    steps: int | None = setting(None, at_least=0)
    head_ids: str | None = None  # of config.data's classes
    set_ids: str | None = None  # of this data set's classes
    missing: str = setting("wrong", choices=("wrong", "ignore"))  # images whose class the head lacks


@dataclass(frozen=True)
class FewshotSpec:
    """A linear probe of the representation before the head, by closed-form ridge regression (big_vision's fewshot_lsr)."""

    type: str = "fewshot"
    steps: int | None = setting(None, at_least=0)
    data_dir: str | None = None  # None: config.data.data_dir
    sets: tuple[str, ...] = FEWSHOT_SETS
    shots: tuple[int, ...] = (1, 5, 10, 25)
    seeds: tuple[int, ...] = (0, 1, 2)
    l2: tuple[float, ...] = (2.0**10,)  # more than one: chosen on a part of the support images
    resize_pixels: int = setting(0, at_least=0)  # both sides, before the centre is cut out; 0: 256/224 of image_size


@dataclass(frozen=True)
class AttentionStatsSpec:
    """What attention weights and residual stream look like, layer by layer (arXiv:2306.12929, section 5)."""

    type: str = "attention_stats"
    data: SetSpec = SetSpec()
    steps: int | None = setting(None, at_least=0)
    images: int = setting(512, at_least=1)  # the first ones of the split


EvaluatorSpec = ClassificationSpec | LabelSubsetSpec | FewshotSpec | AttentionStatsSpec
EVALUATOR_SPECS: dict[str, type[Any]] = {
    kind.type: kind for kind in (ClassificationSpec, LabelSubsetSpec, FewshotSpec, AttentionStatsSpec)
}


def evaluator_spec(values: Any, path: str) -> type[Any]:
    """The dataclass that a section of config.evals is to be read into, by its `type`."""
    kind = values.get("type")
    if kind is None:
        raise UserError(f"{path}.type is missing (choices: {', '.join(EVALUATOR_SPECS)})")
    if not isinstance(kind, str) or kind not in EVALUATOR_SPECS:
        raise unknown(f"{path}.type: the evaluator", str(kind), EVALUATOR_SPECS)
    return EVALUATOR_SPECS[kind]
