"""The loop over steps: the one place where batches, updates, metrics, evaluation, checkpoints and signals meet."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import jax

from vit_attn.data.batch import Batch
from vit_attn.data.pipeline import eval_batches
from vit_attn.data.source import Source
from vit_attn.evals import classification
from vit_attn.loop.clock import TrainClock
from vit_attn.loop.member import Member
from vit_attn.loop.program import Program
from vit_attn.loop.progress import Rows, progress_line
from vit_attn.loop.stop import Stop

Metrics = dict[str, Any]  # of one update: scalars that may still be on their way


class Pack:
    """Members that share a program and a stream of batches. Those that diverge leave; the others never notice."""

    def __init__(self, members: list[Member], program: Program, validation: Source) -> None:
        self.members = list(members)  # those still training
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
                self._write(self._settle(*late, self.step))
            self.step += 1
            reason, evaluate, save = stop.reason(), self._due(self._spec.eval.steps), self._due(self._spec.loop.ckpt_steps)
            log = evaluate or self.step == 1 or self._due(self._spec.loop.log_steps)
            late = (due, metrics) if log else None
            if reason or evaluate or save:
                rows = self._settle(due, metrics, self.step)
                if evaluate:
                    self._evaluate(rows)
                if log:
                    self._write(rows)
                late = None
            if reason or save:
                with self._clock.paused():
                    for member in self.members:
                        if member.start < self.step:
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

    def _settle(self, due: list[Member], metrics: list[Metrics], step: int) -> Rows:
        """Waits for the numbers of `step`: a row for each of the members that stay. Those no longer finite leave."""
        fetched = jax.device_get(metrics)
        seconds, steps = self._clock.lap(), step - self._lap_step
        self._lap_step = step
        rows = Rows(step, seconds / max(steps, 1) * (self._spec.train.steps - step), [])
        for member, values in zip(due, fetched, strict=True):
            if member not in self.members:  # it left a moment ago, when the step before was settled
                continue
            diverged_at = int(values.pop("diverged_at"))
            row = {key: float(value) for key, value in values.items()} | self._speed(member, seconds / len(due), steps)
            if diverged_at < 0:
                rows.of.append((member, row))
                continue
            member.end("diverged", diverged_at, f"diverged at step {diverged_at}")
            self.members.remove(member)
            print(f"{member.run_dir.path}: diverged at step {diverged_at}; its last finite checkpoint stays", flush=True)
        return rows

    def _write(self, rows: Rows) -> None:
        for member, row in rows.of:
            member.report(rows.step, row, rows.seconds_left)
        if rows.of:
            print(progress_line(rows, self._spec.train.steps), flush=True)

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

    def _evaluate(self, rows: Rows) -> None:
        """Adds the validation means to the rows. Each batch is decoded once and serves all members."""
        with self._clock.paused(), closing(eval_batches(self._spec, self._validation)) as batches:
            sums: list[list[Any]] = [[] for _ in rows.of]
            for batch in batches:
                arrays = self._program.put(batch)
                for (member, _), parts in zip(rows.of, sums, strict=True):
                    parts.append(self._program.sums(member.state.params, member.knobs, arrays))
            for (_, row), parts in zip(rows.of, sums, strict=True):
                row.update(classification.means(jax.device_get(parts)))
