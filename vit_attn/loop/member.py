"""One member of a pack: its state on the device, its directory, its clock."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from vit_attn.loop.program import Program
from vit_attn.parallel.processes import is_first, say, word_of_first
from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.run import Knobs, RunSpec, flat, knobs_of
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.metrics import Histogram, MetricsLog
from vit_attn.store.restore import BadCheckpointError
from vit_attn.store.run_dir import RunDir, differences, write_rows
from vit_attn.train.init_from import start_params
from vit_attn.train.state import State


@dataclass(eq=False)
class Member:
    run_dir: RunDir
    spec: RunSpec
    knobs: Knobs
    state: State
    start: int  # the step it was restored at; 0 for a fresh one
    train_seconds: float  # its share of the pack's training time, over all restarts
    bad_images: int  # that were skipped until then
    checkpoints: Checkpoints
    log: MetricsLog | None  # None: another process writes
    newest: dict[str, float] = field(default_factory=dict)  # metrics, each as last seen
    unfinished: dict[str, float] = field(default_factory=dict)  # the row of `start`, if a stop kept it from being evaluated
    told: bool = False  # that there is no config.loop.ckpt_best

    def save(self, step: int, bad_images: int, row: dict[str, float], unfinished: bool) -> None:
        """Starts saving, unless this step is on the disk. Returns before it is finished.

        `row`: the metrics of this very step. `unfinished`: they wait for an evaluation, and are written when it is made up for.
        """
        if step in self.checkpoints.steps():
            return
        info = {
            "config": asdict(self.spec),
            "step": step,
            "examples": step * self.spec.train.batch_images,
            "train_seconds": self.train_seconds,
            "bad_images": bad_images,
            "unfinished": {key: value for key, value in row.items() if math.isfinite(value)} if unfinished else {},
        }
        self._check_best()
        rows = self.run_dir.metrics() if self.log and self.checkpoints.apart else None
        self.checkpoints.save(step, self.state, info, row, rows)

    def report(self, step: int, values: dict[str, float], seconds_left: float | None) -> None:
        """One row in the metrics, and the status that launchers read."""
        if self.log:
            self.log.write(step, values)
        self.newest.update({key: value for key, value in values.items() if math.isfinite(value)})
        self._status("running", step, seconds_left=seconds_left)

    def draw(self, step: int, values: dict[str, Histogram]) -> None:
        """One row of histograms."""
        if self.log:
            self.log.write_histograms(step, values)

    def end(self, state: str, step: int, message: str = "") -> None:
        """Everything on the disk, then the word that it is."""
        self.checkpoints.close()
        if self.log:
            self.log.close()
        self._status(state, step, message=message)

    def fail(self, step: int, error: BaseException) -> None:
        """Says why it ended. Touches nothing else: the error may have come from anywhere."""
        self._status("failed", step, message=f"{type(error).__name__}: {error}"[:1000])

    def _check_best(self) -> None:
        """Says once that config.loop.ckpt_best is not among the metrics, as soon as others of its kind are."""
        best = self.spec.loop.ckpt_best
        if best is None or best in self.newest or self.told or not self.log:
            return
        if any(key.partition("/")[0] == best.partition("/")[0] for key in self.newest):
            say(
                f"note: {unknown('config.loop.ckpt_best: the metric', best, sorted(self.newest))}; no checkpoint is kept for it"
            )
            self.told = True

    def _status(self, state: str, step: int, **values: Any) -> None:
        if self.log:
            self.run_dir.write_status(state, step=step, steps=self.spec.train.steps, metrics=self.newest, **values)


def open_member(run_dir: RunDir, spec: RunSpec, program: Program, checkpoints: Checkpoints) -> Member:
    """The member as its newest good checkpoint has it, or a fresh one if there is none. All processes open it together."""
    knobs = program.knobs(knobs_of(spec))
    start, info = 0, dict[str, Any](train_seconds=0.0, bad_images=0)
    if checkpoints.steps():  # step 0 is saved too, where parameters were imported
        start, state, info = _restore(run_dir, spec, program, checkpoints)
    else:
        state = program.init(knobs)
        if spec.init_from is not None:
            params, line = start_params(spec, state.params)
            state = state._replace(params=params)
            say(f"{run_dir.path}: {line}")
    log, newest = None, {}
    if is_first():
        hparams = {key: value for key, value in flat(spec).items() if isinstance(value, str | int | float)}
        log = MetricsLog(run_dir, start, hparams)
        newest = {key: value for row in run_dir.metrics() for key, value in row.items() if key != "step"}
    seconds, bad = float(info["train_seconds"]), int(info["bad_images"]) if is_first() else 0  # they add up over processes
    member = Member(run_dir, spec, knobs, state, start, seconds, bad, checkpoints, log, newest)
    if not word_of_first(any(row["step"] == start for row in run_dir.metrics()) if is_first() else None):
        member.unfinished = info.get("unfinished", {})
    member._status("running", start)
    return member


def _restore(run_dir: RunDir, spec: RunSpec, program: Program, checkpoints: Checkpoints) -> tuple[int, State, dict[str, Any]]:
    """(step, state, info) of the newest checkpoint that is whole and this run's; newer ones are set aside, and said so."""
    refused: list[tuple[int, str]] = []
    for step in reversed(checkpoints.steps()):
        try:
            state, info = checkpoints.restore(step, program.abstract_state)
            if different := differences(info["config"], asdict(spec)):
                raise BadCheckpointError(f"checkpoint {checkpoints.path(step)} is another run's: {'; '.join(different)}")
            rows = checkpoints.rows(step)
        except BadCheckpointError as error:
            refused.append((step, str(error)))
            continue
        for bad, reason in refused:
            checkpoints.set_aside(bad)
            say(f"refused: {reason}; going on from step {step}")
        if rows is not None and is_first():
            write_rows(run_dir.metrics_file, rows)
        return step, state, info
    raise UserError(
        f"{run_dir.path}: none of its checkpoints can be used ({'; '.join(reason for _, reason in refused)}); "
        "put good ones back, or start over with --overwrite"
    )
