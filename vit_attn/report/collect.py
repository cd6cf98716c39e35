"""Run directories -> one row a run. Works while the runs are still being trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vit_attn.ops.nonlinearity import NONLINEARITY
from vit_attn.report.aftermath import aftermath
from vit_attn.report.sweep_file import SweepFile, read_sweep
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec, flat
from vit_attn.store.run_dir import RunDir, Status

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True)
class Row:
    """One run. accuracy and loss are the newest of the validation split; None: not known yet. `length` is L.

    `metrics` are the newest ones, and those of its quantized forms; `log` is what its worker printed, where there is one.
    """

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
    metrics: dict[str, float] = field(repr=False, hash=False)
    path: Path = field(repr=False)
    log: Path | None = field(repr=False)

    @property
    def has_result(self) -> bool:
        return self.state == "done" and self.accuracy is not None

    @property
    def size(self) -> str:
        """ "S/16"."""
        return f"{self.variant.partition('/')[0]}/{self.patch}"

    @property
    def gate(self) -> str:
        return self.settings["model.attention.gate"]

    @property
    def core_hours(self) -> float | None:
        return None if self.core_seconds is None else self.core_seconds / SECONDS_AN_HOUR


class Collected(NamedTuple):
    rows: list[Row]
    lost: list[str]  # "NAME: why", a line for each member that cannot be read, or that a sweep has and that is not there


def collect(paths: Sequence[Path]) -> Collected:
    """The runs in `paths`, by L, h, alpha and seed. A path is a run directory, or a directory of run directories.

    Raises UserError for a path that holds no run, or none that can be read.
    """
    rows: list[Row] = []
    lost: list[str] = []
    for path in paths:
        found = _rows_in(path)
        rows, lost = rows + found.rows, lost + found.lost
    order = list(NONLINEARITY)
    return Collected(sorted(rows, key=lambda r: (r.length, order.index(r.h), r.alpha or 0.0, r.seed, r.name)), lost)


def _rows_in(path: Path) -> Collected:
    if not path.is_dir():
        raise UserError(f"{path} is not a directory: give a sweep's, or a run's")
    if (path / "config.json").exists():
        return Collected([_row(RunDir(path), read_sweep(path.absolute().parent))], [])
    sweep = read_sweep(path)
    names = [config.parent.name for config in sorted(path.glob("*/config.json"))]
    rows, lost = [], [f"{name}: not there yet (no config.json)" for name in sweep.members if name not in set(names)]
    refused: list[UserError] = []
    for name in names:
        try:
            rows.append(_row(RunDir(path / name), sweep))
        except UserError as error:
            refused.append(error)
            lost.append(f"{name}: {error}")
    if refused and not rows:
        raise refused[0]
    if not rows:
        raise UserError(f"{path} holds no run: neither it nor a directory in it has a config.json")
    return Collected(rows, lost)


def _row(run: RunDir, sweep: SweepFile) -> Row:
    if (spec := run.spec()) is None:
        raise UserError(f"{run.path / 'config.json'} has just gone")
    status = run.status()
    metrics = {**_numbers(run, status), **aftermath(run.path, status.step)}
    hours = metrics.get("speed/core_hours")
    name = run.path.resolve().name
    return Row(
        name=name,
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
        accuracy=metrics.get("val/accuracy"),
        loss=metrics.get("val/loss"),
        core_seconds=None if hours is None else hours * SECONDS_AN_HOUR,
        state=status.seen_state(),
        message=_reason(status),
        settings=_settings(spec),
        metrics=metrics,
        path=run.path,
        log=sweep.log(name),
    )


def _numbers(run: RunDir, status: Status) -> dict[str, float]:
    if not isinstance(status.metrics, dict):
        raise UserError(f"{run.path / 'status.json'}: metrics is a {type(status.metrics).__name__}, not a table")
    return {name: value for name, value in status.metrics.items() if isinstance(value, int | float)}


def _reason(status: Status) -> str:
    return "" if status.state == "running" else status.message


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Every setting by its dotted name. `model.variant` is the name of the size alone: the patch has its own entry."""
    settings = flat(spec)
    return {**settings, "model.variant": spec.model.variant.partition("/")[0]}
