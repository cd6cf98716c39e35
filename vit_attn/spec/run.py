"""What a run is: frozen dataclasses. Every default lives here, once.

Fields marked `knob=True` are numbers that the compiled step takes as arguments; all others are static and shape the program.
Runs that agree in everything but knobs can be one pack: one compiled program, one stream of batches (see `static_of`).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.data import DataSpec
from vit_attn.spec.evals import EvalSpec, EvaluatorSpec, evaluator_spec
from vit_attn.spec.mesh import MESH, RULES, MeshSpec, RulesSpec
from vit_attn.spec.model import MODEL, ModelSpec
from vit_attn.spec.setting import setting


@dataclass(frozen=True)
class TrainSpec:
    """Loss, optimizer and schedule, as big_vision's `scale_by_adam` recipes."""

    loss: str = setting("softmax_xent", choices=("softmax_xent", "sigmoid_xent"))
    label_smoothing: float = setting(0.0, at_least=0, below=1)  # mass that is spread over all classes
    batch_images: int = setting(1024, at_least=1)
    accumulate: int = setting(1, free=True, at_least=1)  # equal parts of a batch, one after the other, for one update
    steps: int = setting(0, at_least=0)  # 0: epochs * epoch_images / batch_images, rounded, or 10,000
    epochs: float | None = setting(None, above=0)
    epoch_images: int | None = setting(None, at_least=1)  # in the training split; needed with epochs
    warmup_steps: int = setting(0, at_least=0)
    warmup_start: float = setting(0.0, at_least=0, at_most=1)  # where the warm-up begins, as a fraction of the peak
    floor: float = setting(0.0, at_least=0, at_most=1)  # where the cosine ends, as a fraction of the peak
    cosine_from: str = setting(
        "warmup", choices=("warmup", "start")
    )  # its first step: behind the warm-up (big_vision), or 0 (timm)
    peak_lr: float = setting(1e-3, knob=True, at_least=0)
    weight_decay: float = setting(1e-4, knob=True, at_least=0)  # decoupled, kernels only, not multiplied by the learning rate
    clip_norm: float | None = setting(1.0, above=0)  # global norm of the gradients; None: not clipped
    adam_b1: float = setting(0.9, at_least=0, below=1)
    adam_b2: float = setting(0.999, at_least=0, below=1)
    adam_eps: float = setting(1e-8, above=0)
    adam_mu_dtype: str = setting("bfloat16", choices=("float32", "bfloat16"))
    on_nonfinite: str = setting("leave", choices=("leave", "skip"))  # where the loss or a gradient is not finite: the member
    # leaves as diverged, or the update is not made (nothing changes but the step) until there are skip_limit in a row
    skip_limit: int = setting(10, at_least=1)
    spike_sigmas: float = setting(6.0, above=0)  # train/loss_spikes counts losses so many running standard deviations above
    # their running mean: over all steps up to 100, then exponential over 100; the first 100 are never counted


@dataclass(frozen=True)
class LoopSpec:
    """How often things happen, in steps, and what is kept."""

    log_steps: int = setting(50, free=True, at_least=1)
    ckpt_steps: int = setting(1000, free=True, at_least=1)
    ckpt_keep: int = setting(2, free=True, at_least=1)  # the newest ones
    ckpt_keep_every: int | None = setting(None, free=True, at_least=1)  # and those of steps that it divides, for good
    ckpt_best: str | None = setting(None, free=True)  # and the best by this metric of its own step: "val/accuracy"; a run then
    # saves where it evaluates, too
    ckpt_best_order: str = setting("max", free=True, choices=("max", "min"))
    ckpt_dir: str | None = setting(None, free=True)  # None: in the run's directory; else a directory of its own, also gs://...;
    # {name} in it becomes the name of the run's directory, so that the members of a sweep do not meet
    until: int | None = setting(None, free=True, at_least=1)  # a run saves and ends there, as `paused`; None: at the last step
    histogram_steps: int = setting(0, free=True, at_least=0)  # of all parameters, in TensorBoard; 0: never


@dataclass(frozen=True)
class RunSpec:
    """One run, whole."""

    seed: int = setting(0, knob=True, at_least=0, below=2**32)  # of the initial parameters
    model: ModelSpec = MODEL
    data: DataSpec = DataSpec()
    train: TrainSpec = TrainSpec()
    eval: EvalSpec = EvalSpec()
    evals: dict[str, EvaluatorSpec] = dataclasses.field(default_factory=dict, hash=False, metadata={"kind": evaluator_spec})
    loop: LoopSpec = LoopSpec()
    mesh: MeshSpec = MESH
    rules: RulesSpec = RULES
    init_from: str | None = None  # a run's directory, or one of its checkpoints/STEP: what a fresh run's parameters are


class Knobs(NamedTuple):
    """The numbers of one member that enter the compiled step as arguments: Python numbers, or traced scalars."""

    attention: Numbers
    peak_lr: Any
    weight_decay: Any
    seed: Any


def knobs_of(spec: RunSpec) -> Knobs:
    given = spec.model.attention
    numbers = {name: getattr(given, name) for name in Numbers._fields}
    attention = Numbers(**{name: value for name, value in numbers.items() if value is not None})
    return Knobs(attention, spec.train.peak_lr, spec.train.weight_decay, spec.seed)


def static_of(spec: Any) -> Any:
    """`spec` with every knob at its default: equal for two runs exactly if they can share one compiled program."""
    changes = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = static_of(value)
        elif field.metadata.get("knob"):
            changes[field.name] = field.default
    return dataclasses.replace(spec, **changes)


def free_settings(spec: Any = None, prefix: str = "") -> set[str]:
    """{"data.workers", ...}: what may change when a run is resumed (see spec.setting)."""
    names = set()
    for field in dataclasses.fields(RunSpec if spec is None else spec):
        value = field.default
        if dataclasses.is_dataclass(value):
            names |= free_settings(value, f"{prefix}{field.name}.")
        elif field.metadata.get("free"):
            names.add(f"{prefix}{field.name}")
    return names


def flat(spec: RunSpec | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model.attention.h": "relu", ...}: every setting of a run by its dotted name."""
    values = spec if isinstance(spec, dict) else dataclasses.asdict(spec)
    rows: dict[str, Any] = {}
    for key, value in values.items():
        rows.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return rows
