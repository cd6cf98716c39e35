"""The loop over steps: the one place where batches, updates, metrics, evaluation, checkpoints and signals meet."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import jax

from vit_attn.data.pipeline import Batches
from vit_attn.data.workers import Workers
from vit_attn.evals.evaluator import Evaluator
from vit_attn.loop.clock import SaveClock, TrainClock
from vit_attn.loop.evaluation import Interrupted, evaluate
from vit_attn.loop.feed import Feed
from vit_attn.loop.histograms import histograms
from vit_attn.loop.member import Member
from vit_attn.loop.memory import device_metrics
from vit_attn.loop.profile import Profile
from vit_attn.loop.program import Program
from vit_attn.loop.progress import Rows, display
from vit_attn.loop.stop import Stop
from vit_attn.parallel.processes import say
from vit_attn.spec.flops import flops_per_image, peak_flops
from vit_attn.train.health import diagnosis

MOST_SAVING = 0.05  # of the time, before it is said
Metrics = dict[str, Any]  # of one update: scalars that may still be on their way


class Pack:
    """Members that share a program and a stream of batches. Those that diverge leave; the others never notice."""

    def __init__(
        self,
        members: list[Member],
        program: Program,
        evaluators: Sequence[Evaluator],
        workers: Workers,
        profile: bool = False,
    ) -> None:
        self.members = list(members)  # those still training
        self._spec = members[0].spec  # what is read from it is the same for all
        self._program, self._evaluators, self._workers = program, evaluators, workers
        first = min(members, key=lambda member: member.start)
        self.step, self._bad_before = first.start, first.bad_images
        self._last = min(self._spec.train.steps, self._spec.loop.until or self._spec.train.steps)
        self._clock, self._lap_step = TrainClock(), self.step
        self._unread = 0.0, 0  # seconds and steps that no row has told yet
        self._saves, self._save_told = SaveClock(), False
        self._profile = Profile(first.run_dir.path if profile else None, self.step, self._spec.train.steps, self._clock)
        self._display = display(members, self._spec.train.steps)
        peak = peak_flops(jax.devices()[0].device_kind)
        self._flops, self._peak = flops_per_image(self._spec.model), peak and peak * jax.device_count()

    def train(self, batches: Batches, stop: Stop) -> str:
        """Steps the members in turn, to the end or config.loop.until: returns "" then, else why it stopped. What it returns at
        is saved."""
        late: tuple[list[Member], list[Metrics]] | None = None
        feed = Feed(batches, self._program, self._spec, self.step, self._bad_before)
        with closing(feed) as self._feed, self._display, closing(self._profile), jax.transfer_guard("disallow"):
            if reason := self._catch_up(stop):
                return reason
            while self.step < self._last and self.members:
                self._profile.begin(self.step)
                examples = self._program.prepare(self._feed.take(), self.step)
                due = [member for member in self.members if member.start <= self.step]
                metrics = [self._update(member, examples) for member in due]
                self._feed.refill(metrics)  # while the devices are at work
                if late:  # a step late, so that the devices have work while the host waits for numbers
                    self._write(self._settle(*late, self.step, read=True))
                self.step += 1
                self._profile.end(self.step, metrics)
                evaluators = self._due_evaluators()
                draw = self._spec.loop.histogram_steps > 0 and self._due(self._spec.loop.histogram_steps)
                log = bool(evaluators) or self.step == 1 or self._due(self._spec.loop.log_steps)
                save = self._due(self._spec.loop.ckpt_steps) or self.step == self._last
                save |= bool(evaluators) and self._spec.loop.ckpt_best is not None  # what is measured is what is kept
                reason = stop.after(self.step)
                late = (due, metrics) if log else None
                if reason or evaluators or save or draw:
                    rows = self._settle(due, metrics, self.step, read=log)
                    reason = reason or self._evaluate(evaluators, rows, stop)
                    unfinished = bool(reason and evaluators)
                    if log and not unfinished:
                        self._write(rows)
                    if draw:
                        self._draw(rows)
                    if reason or save:
                        self._save(rows, unfinished)
                    late = None
                if reason:
                    return reason
        return ""

    def _catch_up(self, stop: Stop) -> str:
        """Evaluates what a stop left unevaluated, and writes those rows. Why to stop, or ""."""
        for step in sorted({member.start for member in self.members if member.unfinished}):
            there = [(member, dict(member.unfinished)) for member in self.members if member.unfinished and member.start == step]
            evaluators = [evaluator for evaluator in self._evaluators if self._due(evaluator.steps, step)]
            if reason := self._evaluate(evaluators, Rows(step, 0.0, there), stop):
                return reason
            self._write(Rows(step, 0.0, there))
        return ""

    def _save(self, rows: Rows, unfinished: bool) -> None:
        with self._clock.paused(), self._saves.saving():
            bad_images = self._feed.bad_images(self.step)
            for member, row in rows.of:
                if member.start < self.step:
                    member.save(self.step, bad_images, row, unfinished)
        if self._saves.share > MOST_SAVING and self.step % self._spec.loop.ckpt_steps == 0 and not self._save_told:
            self._save_told = True
            say(
                f"note: saving took {self._saves.share:.0%} of the time since the save before; "
                f"a larger config.loop.ckpt_steps={self._spec.loop.ckpt_steps} makes it less (speed/save_share says how much)"
            )

    def _due(self, every: int, step: int | None = None) -> bool:
        """Whether something that happens each `every` steps (0: never), and at the end, happens at `step`; None: now."""
        step = self.step if step is None else step
        return step == self._spec.train.steps or (every > 0 and step % every == 0)

    def _due_evaluators(self) -> list[Evaluator]:
        return [evaluator for evaluator in self._evaluators if self._due(evaluator.steps)]

    def _update(self, member: Member, examples: Any) -> Metrics:
        member.state, metrics = self._program.update(member.state, member.knobs, examples)
        return metrics

    def _settle(self, due: list[Member], metrics: list[Metrics], step: int, read: bool) -> Rows:
        """Waits for the numbers of `step`: a row for each of the members that stay. Those no longer finite leave.

        `read`: the rows are to be written, and tell of speed and data since those before.
        """
        fetched = jax.device_get(metrics)
        seconds, steps = self._clock.lap(), step - self._lap_step
        self._lap_step = step
        since, in_all = self._unread[0] + seconds, self._unread[1] + steps
        self._unread = (0.0, 0) if read else (since, in_all)
        reading = self._feed.metrics(step, since) | self._saves.metrics() | device_metrics() if read else {}
        rows = Rows(step, since / max(in_all, 1) * (self._last - step), [])
        for member, values in zip(due, fetched, strict=True):
            if member not in self.members:  # it left a moment ago, when the step before was settled
                continue
            diverged_at, culprit = int(values.pop("diverged_at")), int(values.pop("culprit"))
            member.train_seconds += seconds / len(due)
            row = {key: float(value) for key, value in values.items()} | reading
            row |= self._speed(member, since / len(due), in_all) if read else {}
            if diverged_at < 0:
                rows.of.append((member, row))
                continue
            why = diagnosis(self._spec.train, member.state.params, diverged_at, culprit)
            member.report(diverged_at, {"train/diverged_at": diverged_at, "train/culprit": culprit}, None)
            member.end("diverged", diverged_at, why)
            self.members.remove(member)
            self._display.lost(member, why)
            say(f"{member.run_dir.path}: {why}{'; its last finite checkpoint stays' if member.checkpoints.steps() else ''}")
        return rows

    def _write(self, rows: Rows) -> None:
        for member, row in rows.of:
            member.report(rows.step, row, rows.seconds_left)
        if rows.of:
            self._display.show(rows)

    def _draw(self, rows: Rows) -> None:
        with self._clock.paused():
            for member, _ in rows.of:
                member.draw(rows.step, histograms(member.state.params, self._program.mesh))

    def _speed(self, member: Member, seconds: float, steps: int) -> dict[str, float]:
        """A member's share of the time: `seconds` of training for `steps` steps. A core is a device (TPU core, GPU, CPU)."""
        cores = jax.device_count()
        images_per_second = steps * self._spec.train.batch_images / max(seconds, 1e-9)
        return {
            "speed/images_per_second": images_per_second,
            "speed/images_per_second_per_core": images_per_second / cores,
            "speed/core_hours": member.train_seconds * cores / 3600,
            **({"speed/mfu": images_per_second * self._flops / self._peak} if self._peak else {}),
        }

    def _evaluate(self, evaluators: Sequence[Evaluator], rows: Rows, stop: Stop) -> str:
        """Adds what the evaluators find to the rows. Leaves off, and says why, where all have to stop."""
        models = [(member.state.params, member.knobs) for member, _ in rows.of]
        with self._clock.paused():
            for evaluator in evaluators if models else ():
                try:
                    found = evaluate(
                        evaluator, models, self._program, self._spec.data, self._workers, lambda: stop.after(rows.step)
                    )
                except Interrupted as stopped:
                    return stopped.reason
                for (_, row), metrics in zip(rows.of, found, strict=True):
                    row.update(metrics)
        return ""
