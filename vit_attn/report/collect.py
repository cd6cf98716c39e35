"""Run directories -> one row a run. Works while the runs are still being trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_attn.ops.nonlinearity import NONLINEARITY
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec, flat
from vit_attn.store.run_dir import RunDir, Status

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True)
class Row:
    """One run. accuracy and loss are the newest of the validation split; None: not known yet. `length` is L."""

    name: str
    h: str
    alpha: float | None
    length: int
    patch: int
    variant: str
    qk_norm: str
    dataset: str
    seed: int
    step: int
    steps: int
    accuracy: float | None
    loss: float | None
    core_seconds: float | None
    state: str
    message: str
    settings: dict[str, Any] = field(repr=False, hash=False)

    @property
    def has_result(self) -> bool:
        return self.state == "done" and self.accuracy is not None


def collect(paths: Sequence[Path]) -> list[Row]:
    """The runs in `paths`, by L, h, alpha and seed. A path is a run directory, or a directory of run directories.

    Raises UserError for a path that holds no run, or one that cannot be read.
    """
    rows = [_row(run) for path in paths for run in _runs_in(path)]
    order = list(NONLINEARITY)
    return sorted(rows, key=lambda r: (r.length, order.index(r.h), r.alpha or 0.0, r.seed, r.name))


def _runs_in(path: Path) -> list[RunDir]:
    if not path.is_dir():
        raise UserError(f"{path} is not a directory: give a sweep's, or a run's")
    if (path / "config.json").exists():
        return [RunDir(path)]
    runs = [RunDir(config.parent) for config in sorted(path.glob("*/config.json"))]
    if not runs:
        raise UserError(f"{path} holds no run: neither it nor a directory in it has a config.json")
    return runs


def _row(run: RunDir) -> Row:
    try:
        spec = run.spec()
    except UserError as error:
        raise UserError(f"{run.path / 'config.json'}: {error}") from error
    if spec is None:
        raise UserError(f"{run.path / 'config.json'} has just gone")
    status = run.status()
    hours = status.metrics.get("speed/core_hours")
    return Row(
        name=run.path.resolve().name,
        h=spec.model.attention.h,
        alpha=spec.model.attention.alpha,
        length=spec.model.length,
        patch=spec.model.patch,
        variant=spec.model.variant,
        qk_norm=spec.model.attention.qk_norm,
        dataset=spec.data.name,
        seed=spec.seed,
        step=status.step,
        steps=spec.train.steps,
        accuracy=status.metrics.get("val/accuracy"),
        loss=status.metrics.get("val/loss"),
        core_seconds=None if hours is None else hours * SECONDS_AN_HOUR,
        state=status.seen_state(),
        message=_reason(status),
        settings=_settings(spec),
    )


def _reason(status: Status) -> str:
    return "" if status.state == "running" else status.message


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Every setting by its dotted name. `model.variant` is the name of the size alone: the patch has its own entry."""
    settings = flat(spec)
    return {**settings, "model.variant": spec.model.variant.partition("/")[0]}
