"""One member of a pack: its state on the device, its directory, its clock."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

from vit_attn.loop.program import Program
from vit_attn.parallel.processes import from_first
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import Knobs, RunSpec, flat, knobs_of
from vit_attn.store.checkpoint import BadCheckpointError, Checkpoints
from vit_attn.store.metrics import Histogram, MetricsLog
from vit_attn.store.run_dir import RunDir, differences
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
    checkpoints: Checkpoints | None  # None: another process writes
    log: MetricsLog | None
    newest: dict[str, float] = field(default_factory=dict)  # metrics, each as last seen

    def save(self, step: int, bad_images: int) -> None:
        """Starts saving, unless this step is on the disk. Returns before it is finished."""
        if self.checkpoints and step not in self.checkpoints.steps():
            info = {
                "config": asdict(self.spec),
                "step": step,
                "examples": step * self.spec.train.batch_images,
                "train_seconds": self.train_seconds,
                "bad_images": bad_images,
            }
            self.checkpoints.save(step, self.state, info)

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
        if self.checkpoints:
            self.checkpoints.wait()
            self.checkpoints.close()
        if self.log:
            self.log.close()
        self._status(state, step, message=message)

    def fail(self, step: int, error: BaseException) -> None:
        """Says why it ended. Touches nothing else: the error may have come from anywhere."""
        self._status("failed", step, message=f"{type(error).__name__}: {error}"[:1000])

    def _status(self, state: str, step: int, **values: Any) -> None:
        if self.log:
            self.run_dir.write_status(state, step=step, steps=self.spec.train.steps, metrics=self.newest, **values)


def open_member(run_dir: RunDir, spec: RunSpec, program: Program, checkpoints: Checkpoints | None) -> Member:
    """The member as its newest good checkpoint has it, or a fresh one if there is none. `checkpoints`: None but in the first
    process, whose word the others take."""
    knobs = program.knobs(knobs_of(spec))
    start, state, info = 0, None, {"train_seconds": 0.0, "bad_images": 0}
    if checkpoints and checkpoints.steps():
        start, state, info = _restore(run_dir, spec, program, checkpoints)
    start, saved = (int(x) for x in from_first(np.array([start, state is not None], np.int32)))
    state = program.shared(state) if saved else program.init(knobs)  # step 0 is saved too, where parameters were imported
    log, newest = None, {}
    if checkpoints:
        hparams = {key: value for key, value in flat(spec).items() if isinstance(value, str | int | float)}
        log = MetricsLog(run_dir, start, hparams)
        newest = {key: value for row in run_dir.metrics() for key, value in row.items() if key != "step"}
    seconds, bad = float(info["train_seconds"]), int(info["bad_images"])
    member = Member(run_dir, spec, knobs, state, start, seconds, bad, checkpoints, log, newest)
    member._status("running", start)
    return member


def _restore(run_dir: RunDir, spec: RunSpec, program: Program, checkpoints: Checkpoints) -> tuple[int, State, dict[str, Any]]:
    """(step, state, info) of the newest checkpoint that is whole and this run's; newer ones are set aside, and said so."""
    refused: list[tuple[int, str]] = []
    for step in reversed(checkpoints.steps()):
        try:
            state, info = checkpoints.restore(step, program.abstract_here)
            if different := differences(info["config"], asdict(spec)):
                raise BadCheckpointError(f"checkpoint {checkpoints.path(step)} is another run's: {'; '.join(different)}")
        except BadCheckpointError as error:
            refused.append((step, str(error)))
            continue
        for bad, reason in refused:
            checkpoints.set_aside(bad)
            print(f"refused: {reason}; going on from step {step}", flush=True)
        return step, jax.block_until_ready(state), info
    raise UserError(
        f"{run_dir.path}: none of its checkpoints can be used ({'; '.join(reason for _, reason in refused)}); "
        "put good ones back, or start over with --overwrite"
    )
