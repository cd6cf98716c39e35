"""The loop over steps: the one place where batches, updates, metrics, evaluation, checkpoints and signals meet."""

from collections.abc import Iterator
from typing import Any

import jax

from vit_attn.data.batch import Batch
from vit_attn.data.pipeline import eval_batches
from vit_attn.data.source import Source
from vit_attn.evals import classification
from vit_attn.loop.clock import TrainClock
from vit_attn.loop.member import Member
from vit_attn.loop.program import Program
from vit_attn.loop.progress import progress_line
from vit_attn.loop.stop import Stop

Metrics = dict[str, Any]


class Pack:
    """Members that share a program and a stream of batches. Those that diverge leave; the others never notice."""

    def __init__(self, members: list[Member], program: Program, validation: Source) -> None:
        self.members = members  # those still training
        self._spec = members[0].spec  # what is read from it is the same for all
        self._program, self._validation = program, validation
        self.step = min(member.start for member in members)
        self._clock, self._lap_step = TrainClock(), self.step

    def train(self, batches: Iterator[Batch], stop: Stop) -> str:
        """Steps the members in turn, to the end: returns "" then, else why it stopped. What it returns at is saved."""
        late: tuple[list[Member], list[Metrics]] | None = None
        while self.step < self._spec.train.steps and self.members:
            examples = self._program.prepare(next(batches), self.step)
            due = [member for member in self.members if member.start <= self.step]
            metrics = [self._update(member, examples) for member in due]
            if late:  # a step late, so that the devices have work while the host waits for numbers
                self._log(*late, self.step)
            self.step += 1
            reason, evaluate, save = stop.reason(), self._due(self._spec.eval.steps), self._due(self._spec.loop.ckpt_steps)
            late = (due, metrics) if self.step == 1 or self._due(self._spec.loop.log_steps) else None
            if reason or evaluate or save:
                self._log(due, metrics, self.step, evaluate)
                late = None
            if reason or save:
                with self._clock.paused():
                    for member in self.members:
                        member.save(self.step)
            if reason:
                return reason
        return ""

    def _due(self, every: int) -> bool:
        """Whether something that happens each `every` steps (0: never), and at the end, happens now."""
        return self.step == self._spec.train.steps or (every > 0 and self.step % every == 0)

    def _update(self, member: Member, examples: Any) -> Metrics:
        member.state, metrics = self._program.update(member.state, member.knobs, examples)
        return metrics

    def _log(self, due: list[Member], metrics: list[Metrics], step: int, evaluate: bool = False) -> None:
        """Fetches the metrics of `step`, writes a row a member, and lets those leave that are no longer finite."""
        fetched = jax.device_get(metrics)
        seconds, steps = self._clock.lap(), step - self._lap_step
        self._lap_step = step
        left = seconds / max(steps, 1) * (self._spec.train.steps - step)
        rows = []
        for member, values in zip(due, fetched, strict=True):
            diverged_at = int(values.pop("diverged_at"))
            row = {key: float(value) for key, value in values.items()} | self._speed(member, seconds / len(due), steps)
            rows.append(row)
            if diverged_at >= 0:
                member.report(step, row, None)
                member.end("diverged", diverged_at, f"diverged at step {diverged_at}")
                self.members.remove(member)
        if evaluate and self.members:
            with self._clock.paused():
                means = self._evaluate()
            rows = [row | means.get(member.run_dir.name, {}) for member, row in zip(due, rows, strict=True)]
        for member, row in zip(due, rows, strict=True):
            if member in self.members:
                member.report(step, row, left)
        print(progress_line(step, self._spec.train.steps, left, dict(zip((m.run_dir.name for m in due), rows, strict=True))), flush=True)

    def _speed(self, member: Member, seconds: float, steps: int) -> dict[str, float]:
        """A member's share of the time: `seconds` of training for `steps` steps. A core is a device (TPU core, GPU, CPU)."""
        cores = jax.device_count()
        member.train_seconds += seconds
        images_per_second = steps * self._spec.train.batch_images / max(seconds, 1e-9)
        return {
            "speed/images_per_second": images_per_second,
            "speed/images_per_second_per_core": images_per_second / cores,
            "speed/core_hours": member.train_seconds * cores / 3600,
        }

    def _evaluate(self) -> dict[str, dict[str, float]]:
        """Validation means by member: each batch is decoded once and serves all members."""
        sums: dict[str, list[Any]] = {member.run_dir.name: [] for member in self.members}
        for batch in eval_batches(self._spec, self._validation):
            arrays = self._program.put(batch)
            for member in self.members:
                sums[member.run_dir.name].append(self._program.sums(member.state.params, member.knobs, arrays))
        return {name: classification.means(jax.device_get(parts)) for name, parts in sums.items()}
