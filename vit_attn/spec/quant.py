"""What post-training quantization is to do. Every default lives here, once. See vit_attn.quantize."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_attn.spec.errors import UserError
from vit_attn.spec.setting import build, setting

ESTIMATORS = ("min_max", "running_min_max", "percentile", "mse")
ALL = "all"


@dataclass(frozen=True)
class QuantSpec:
    """Simulated quantization: x -> s (clip(round(x / s) + z, 0, 2^b - 1) - z)   (arXiv:2306.12929, sections 2 and 5).

    Weights: symmetric (z = 0), signed. Activations: asymmetric, 0 inside the range, one range a tensor, found on training
    images and fixed then. Each of `estimators` is measured, on `repeats` different subsets.
    """

    weight_bits: int = setting(8, at_least=2, at_most=16)
    activation_bits: int = setting(8, at_least=2, at_most=16)
    weight_estimator: str = setting("min_max", choices=("min_max", "mse"))  # mse below 8 bits, says section B.7
    per_channel: bool = False  # a range for each output channel of a kernel
    estimators: tuple[str, ...] = setting(
        ("running_min_max",), choices=(*ESTIMATORS, ALL)
    )  # of activations: see quant.estimate
    percentiles: tuple[float, ...] = (99.99, 99.999)  # of the estimator percentile, one table line each
    momentum: float = setting(0.9, at_least=0, below=1)  # of the running ranges: new = 0.9 old + 0.1 batch
    batches: int = setting(16, at_least=1)  # of calibration images
    batch_images: int = setting(32, at_least=1)
    repeats: int = setting(3, at_least=1)  # with other calibration images
    seed: int = setting(0, at_least=0, below=2**31)  # of the order in which training images are drawn: seed, seed + 1, ...
    split: str | None = None  # to calibrate on; None: config.data.train_split of the run
    context: str = setting(
        "after_gate", choices=("before_gate", "after_gate")
    )  # where a gated output of attention is quantized
    fold_length: bool = False  # h(z) is quantized, and L^-alpha joins its scale; else L^-alpha h(z) is
    exclude: tuple[str, ...] = ()  # points that are left in float32, as "head/*" or "encoderblock_3/attention/logits"

    @property
    def name(self) -> str:
        """ "w8a8": of the metrics quant/w8a8/accuracy."""
        return f"w{self.weight_bits}a{self.activation_bits}"

    @property
    def measured(self) -> list[str]:
        """The estimators by the names of their table lines."""
        names = ESTIMATORS if ALL in self.estimators else self.estimators
        lines = [
            [f"percentile_{p!r}".removesuffix(".0") for p in self.percentiles] if name == "percentile" else [name]
            for name in names
        ]
        return list(dict.fromkeys(name for several in lines for name in several))


def resolve_quant(values: Mapping[str, Any]) -> QuantSpec:
    """Plain values -> what to do. Raises UserError for an unknown key, a wrong type or a value out of bounds."""
    spec = build(QuantSpec, values)
    if "percentile" in spec.estimators and not spec.percentiles:
        raise UserError("config.percentiles is empty, and config.estimators has percentile: name some, as [99.99, 99.999]")
    if not spec.measured:
        raise UserError(f"config.estimators={list(spec.estimators)} names none (choices: {', '.join((*ESTIMATORS, ALL))})")
    for p in spec.percentiles:
        if not 50.0 < p <= 100.0:
            raise UserError(f"config.percentiles: {p:g} must be above 50 and at most 100, as 99.99")
    if spec.percentiles != QuantSpec.percentiles and not {"percentile", ALL} & {*spec.estimators}:
        raise UserError(
            f"config.percentiles={list(spec.percentiles)} without the estimator that takes them: config.estimators is "
            f"{', '.join(spec.estimators)}; add percentile to it, or leave config.percentiles out"
        )
    return spec


def check_int8(spec: QuantSpec) -> None:
    """Raises UserError if int8 cannot hold the integers."""
    for key in ("weight_bits", "activation_bits"):
        if (bits := getattr(spec, key)) > 8:
            raise UserError(f"config.{key}={bits}: INT8 holds at most 8 bits; take fewer, or leave out --int8 and --export")


def told(spec: QuantSpec, estimator: str, split: str, excluded: Sequence[str]) -> str:
    """ "running_min_max on 3 x 16 x 32 images of 'train'; weights min_max, a range a tensor; excluded: nothing"."""
    images = f"{spec.repeats} x {spec.batches} x {spec.batch_images} images of {split!r}"
    weights = f"weights {spec.weight_estimator}, a range a {'channel' if spec.per_channel else 'tensor'}"
    return f"{estimator} on {images}; {weights}; excluded: {', '.join(excluded) or 'nothing'}"


def as_values(spec: QuantSpec) -> dict[str, Any]:
    """As a file has them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(spec).items()}
