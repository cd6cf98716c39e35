"""Plain values -> RunSpec: the one place where a config is read. Fills in what follows, refuses what cannot be."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vit_attn.ops.nonlinearity import POINTWISE, ROWWISE
from vit_attn.spec.check_evals import check_evals
from vit_attn.spec.errors import UserError
from vit_attn.spec.mesh import check_mesh
from vit_attn.spec.model import AttentionSpec, ModelSpec
from vit_attn.spec.run import RunSpec, TrainSpec
from vit_attn.spec.setting import build
from vit_attn.spec.variants import parse_variant

CLIPPED = [h for h, kind in ROWWISE.items() if kind.clipped]
PER_HEAD = ["linear", "mlp", "all_heads"]  # gates of one number a head and token
# setting: (the setting that decides whether it has a meaning, for which of its values, a value that changes nothing)
_TAKERS: dict[str, tuple[str, list[str], Any]] = {
    "alpha": ("h", [*POINTWISE], 0.0),
    "gamma": ("h", CLIPPED, 0.0),
    "gamma_per_length": ("h", CLIPPED, 0.0),
    "zeta": ("h", CLIPPED, 1.0),
    "gate_activation": ("gate", ["gau"], None),
    "n_hid": ("gate", ["mlp"], None),
    "pi_init": ("gate", PER_HEAD, None),
    "gate_std": ("gate", PER_HEAD, None),
}
DEFAULT_STEPS = 10_000
DEFAULT_GAMMA = -0.003  # arXiv:2306.12929, table 7, without a LayerNorm of the patches


def resolve(values: Mapping[str, Any]) -> RunSpec:
    """A config as nested plain values -> the run. resolve(asdict(resolve(v))) == resolve(v).

    Raises UserError for an unknown key, a wrong type, a value out of bounds or an impossible combination.
    """
    spec = build(RunSpec, values)
    return dataclasses.replace(_checked(spec), model=_complete(spec.model), train=_complete_train(spec.train))


def _complete_train(train: TrainSpec) -> TrainSpec:
    """Fills in the number of steps."""
    steps = train.steps
    if train.epochs is not None:
        epochs, images, batch = train.epochs, train.epoch_images, train.batch_images
        if images is None:
            raise UserError(f"config.train.epochs={epochs} needs config.train.epoch_images: the images of the training split")
        steps = round(epochs * images / batch)
        if not steps:
            raise UserError(f"config.train.epochs={epochs} of {images} images are not one batch of {batch}")
        if train.steps not in (0, steps):
            raise UserError(
                f"config.train.steps={train.steps} and config.train.epochs={epochs} ({steps} steps) contradict each other: "
                "set config.train.epochs=none, or leave the steps out"
            )
    steps = steps or DEFAULT_STEPS
    if train.warmup_steps >= steps:
        raise UserError(f"config.train.warmup_steps={train.warmup_steps} must be less than config.train.steps={steps}")
    return dataclasses.replace(train, steps=steps)


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
    """Fills in the numbers that the chosen h and gate have, and refuses those that they have not."""
    h = attention.h
    for key, (chosen, takers, neutral) in _TAKERS.items():
        value, choice = getattr(attention, key), getattr(attention, chosen)
        if value not in (None, neutral) and choice not in takers:
            raise UserError(
                f"config.model.attention.{key}={value} has no meaning for {chosen}={choice!r}: "
                f"leave it out, or take {chosen} from {', '.join(takers)}"
            )
    if attention.gamma is not None and attention.gamma_per_length is not None:
        raise UserError(
            f"config.model.attention.gamma={attention.gamma} and gamma_per_length={attention.gamma_per_length} "
            "are two ways to say the same (gamma = -c / L): leave one out"
        )
    if attention.alpha_learned != "none" and h not in POINTWISE:
        raise UserError(
            f"config.model.attention.alpha_learned={attention.alpha_learned!r} has no meaning for h={h!r}, which has no alpha: "
            f"leave it at 'none', or take h from {', '.join(POINTWISE)}"
        )
    if attention.qk_norm == "none" and (attention.qk_norm_bias or not attention.qk_norm_scale):
        raise UserError(
            f"config.model.attention.qk_norm_scale={attention.qk_norm_scale} and qk_norm_bias={attention.qk_norm_bias} have no "
            "meaning for qk_norm='none': leave them out, or take qk_norm from head, width"
        )
    if attention.gate_rescale and attention.gate not in PER_HEAD:
        raise UserError(
            f"config.model.attention.gate_rescale=True has no meaning for gate={attention.gate!r}: leave it out, or take gate "
            f"from {', '.join(PER_HEAD)}"
        )
    if attention.dropout and attention.impl not in ("auto", "dense"):
        raise UserError(
            f"config.model.attention.impl={attention.impl!r} knows no dropout (config.model.attention.dropout="
            f"{attention.dropout}): take impl from auto, dense"
        )
    if h in CLIPPED and attention.seq_layout not in ("auto", "gather"):
        raise UserError(
            f"config.model.attention.seq_layout={attention.seq_layout!r} is not possible for h={h!r}, which needs whole rows: "
            "take seq_layout from auto, gather"
        )
    gamma = DEFAULT_GAMMA if attention.gamma_per_length is None else None
    defaults = {"alpha": 1.0, "gamma": gamma, "zeta": 1.0, "gate_activation": "silu", "n_hid": 4, "pi_init": 0.5}
    filled: dict[str, Any] = {}
    for key, (chosen, takers, _) in _TAKERS.items():
        value = getattr(attention, key)
        has_it = getattr(attention, chosen) in takers
        filled[key] = (defaults.get(key) if value is None else value) if has_it else None
    return dataclasses.replace(attention, **filled)


def _checked(spec: RunSpec) -> RunSpec:
    mesh = spec.mesh
    check_mesh(mesh, spec.rules)
    if mesh.seq != 1 and spec.model.attention.dropout:
        raise UserError(
            f"config.mesh.seq={mesh.seq} knows no attention dropout: set config.model.attention.dropout="
            f"{spec.model.attention.dropout} to 0, or config.mesh.seq to 1"
        )
    batch, parts = spec.train.batch_images, spec.train.accumulate
    if batch % parts:
        raise UserError(
            f"config.train.accumulate={parts} does not divide config.train.batch_images={batch}; numbers that do: "
            f"{', '.join(str(n) for n in range(1, batch + 1) if batch % n == 0)}"
        )
    for key, path in (("init_from", spec.init_from), ("loop.ckpt_dir", spec.loop.ckpt_dir)):
        if path is not None and not path.strip():
            raise UserError(f"config.{key}={path!r} names no directory: leave it out, or write none")
    _check_eval(spec)
    check_evals(spec)
    _check_best(spec)
    padding, side = spec.data.crop_padding, spec.model.image_size
    if padding >= side:
        raise UserError(f"config.data.crop_padding={padding} must be less than config.model.image_size={side}")
    return spec


def _check_eval(spec: RunSpec) -> None:
    pixels, side = spec.eval.resize_pixels, spec.model.image_size
    if pixels and pixels < side:
        raise UserError(
            f"config.eval.resize_pixels={pixels} must be at least config.model.image_size={side}, which is cut out of it"
        )
    if "val" in spec.evals:
        raise UserError("config.evals.val: 'val' is the name of config.eval; take another one")
    for prefix in spec.evals:
        if not re.fullmatch(r"[\w-]+", prefix) or prefix in ("train", "speed", "data", "memory"):
            raise UserError(
                f"config.evals.{prefix}: metrics will begin with this name: letters and digits, not one that is taken"
            )


def _check_best(spec: RunSpec) -> None:
    """The part of a metric's name that is known before there are metrics."""
    metric, families = spec.loop.ckpt_best, ("train", "val", *spec.evals, "speed", "data", "memory")
    if metric is not None and metric.partition("/")[0] not in families:
        raise UserError(
            f"config.loop.ckpt_best={metric!r} is the name of no metric: names begin with one of "
            f"{', '.join(f'{family}/' for family in families)}, for example val/accuracy"
        )
