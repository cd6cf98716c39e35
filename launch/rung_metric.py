"""Whether a metric will have been measured at a step, from the settings alone."""

from launch.grid import Member
from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.evals import ClassificationSpec, LabelSubsetSpec
from vit_attn.spec.run import RunSpec

TRAIN = ("accuracy", "loss", "l2_grads", "l2_params", "l2_updates", "loss_spikes")
CLASSIFICATION, LABEL_SUBSET = ("accuracy", "top5", "loss"), ("accuracy", "top5")


def check_measured(member: Member, metric: str, step: int, share: float) -> None:
    """Raises UserError, with the setting that decides and values that would do, if `metric` has no value at `step`."""
    spec, (family, _, name) = member.spec, metric.partition("/")
    known = _names(spec)
    if family not in known:
        raise unknown("--metric: metrics begin with the name of what measures them, and", family, known)
    if known[family] and name not in known[family]:
        raise unknown("--metric: the metric", metric, [f"{family}/{one}" for one in known[family]])
    if not 0 < step < spec.train.steps:
        raise UserError(f"--halve-at={share:g} of the {spec.train.steps} steps of {member.name} is step {step}: take others")
    evals = _every(spec)
    if family == "train":
        every, setting = spec.loop.log_steps, "config.loop.log_steps"
        measured = step % every == 0 or step == 1 or any(steps and step % steps == 0 for steps in evals.values())
    else:
        every, setting = evals[family], _setting(spec, family)
        measured = every > 0 and step % every == 0
    if not measured:
        when = f"every {every} steps" if every else "at the end only"
        raise UserError(
            f"--metric={metric} is measured {when} ({setting}={every}), not at step {step}, where --halve-at={share:g} of "
            f"{spec.train.steps} ranks {member.name}: say --{setting}={step}, or a divisor of {step}"
        )


def _names(spec: RunSpec) -> dict[str, tuple[str, ...]]:
    """By the first part of a metric's name, what may follow; (): that depends on the data sets."""
    kinds = {ClassificationSpec: CLASSIFICATION, LabelSubsetSpec: LABEL_SUBSET}
    others = {prefix: kinds.get(type(own), ()) for prefix, own in spec.evals.items()}
    return {"train": TRAIN, "val": CLASSIFICATION, **others}


def _every(spec: RunSpec) -> dict[str, int]:
    """Steps between two evaluations, 0: only at the end."""
    others = {prefix: spec.eval.steps if own.steps is None else own.steps for prefix, own in spec.evals.items()}
    return {"val": spec.eval.steps, **others}


def _setting(spec: RunSpec, family: str) -> str:
    own = spec.evals.get(family)
    return "config.eval.steps" if own is None or own.steps is None else f"config.evals.{family}.steps"
