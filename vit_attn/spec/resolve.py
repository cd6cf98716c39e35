"""Plain values -> RunSpec: the one place where a config is read. Fills in what follows, refuses what cannot be."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_attn.ops.nonlinearity import POINTWISE
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import AttentionSpec, ModelSpec, RunSpec
from vit_attn.spec.setting import build
from vit_attn.spec.variants import parse_variant


def resolve(values: Mapping[str, Any]) -> RunSpec:
    """A config as nested plain values -> the run. resolve(asdict(resolve(v))) == resolve(v).

    Raises UserError for an unknown key, a wrong type, a value out of bounds or an impossible combination.
    """
    spec = build(RunSpec, values)
    return dataclasses.replace(_checked(spec), model=_complete(spec.model))


def _complete(model: ModelSpec) -> ModelSpec:
    size, patch = parse_variant(model.variant)
    sizes = {name: getattr(model, name) or value for name, value in {**size._asdict(), "patch": patch}.items()}
    model = dataclasses.replace(model, **sizes, attention=_complete_attention(model.attention))
    if model.image_size % model.patch:
        raise UserError(
            f"config.model.patch={model.patch} does not divide config.model.image_size={model.image_size}; "
            f"patches that do: {', '.join(str(p) for p in range(1, model.image_size + 1) if model.image_size % p == 0)}"
        )
    if model.width % model.heads:
        raise UserError(f"config.model.heads={model.heads} does not divide config.model.width={model.width}")
    if model.posemb == "sincos2d" and model.width % 4:
        raise UserError(f"config.model.posemb='sincos2d' needs a width divisible by 4, not config.model.width={model.width}")
    return model


def _complete_attention(attention: AttentionSpec) -> AttentionSpec:
    if attention.h in POINTWISE:
        return dataclasses.replace(attention, alpha=1.0 if attention.alpha is None else attention.alpha)
    if attention.alpha:
        raise UserError(
            f"config.model.attention.alpha={attention.alpha} has no meaning for h={attention.h!r}: "
            f"leave it out, or take h from {', '.join(POINTWISE)}"
        )
    return dataclasses.replace(attention, alpha=None)


def _checked(spec: RunSpec) -> RunSpec:
    if spec.train.warmup_steps >= spec.train.steps:
        raise UserError(
            f"config.train.warmup_steps={spec.train.warmup_steps} must be less than config.train.steps={spec.train.steps}"
        )
    padding, side = spec.data.crop_padding, spec.model.image_size
    if padding >= side:
        raise UserError(f"config.data.crop_padding={padding} must be less than config.model.image_size={side}")
    return spec
