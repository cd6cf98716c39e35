"""The profile of a few steps (--profile), where TensorBoard's profile plug-in looks for it."""

from pathlib import Path
from typing import Any

import jax

from vit_attn.loop.clock import TrainClock
from vit_attn.parallel.processes import is_first, say

BEFORE, STEPS = 10, 10  # the first steps of a start are not like the others


class Profile:
    """Records steps 11 to 20 of this start in RUN/plugins/profile, by the first process; of fewer than 20 the last ten.

    `run`: None: nothing is recorded. `start`: the steps that were made before this start; `steps`: those of the whole run.
    Starting and writing are no training time.
    """

    def __init__(self, run: Path | None, start: int, steps: int, clock: TrainClock) -> None:
        self._run, self._clock = run if is_first() else None, clock
        self._from = start + max(min(BEFORE, steps - start - STEPS), 0)
        self._to = min(self._from + STEPS, steps)
        self._running = False
        self._annotation: Any = None

    def begin(self, step: int) -> None:
        """To be called before the update that follows `step` others."""
        if self._run is not None and step == self._from:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every call of every function: it slows the steps and fills the file
            with self._clock.paused():
                jax.profiler.start_trace(self._run, profiler_options=options)
            self._running = True
        if self._running:
            self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step + 1)
            self._annotation.__enter__()

    def end(self, step: int, results: Any) -> None:
        """To be called when update number `step` is under way; its `results` are waited for if it is the last recorded."""
        if self._running:
            self._annotation.__exit__(None, None, None)
            if step == self._to:
                jax.block_until_ready(results)
                self._stop(step)

    def close(self) -> None:
        """Ends it early, if it has begun."""
        if self._running:
            self._stop(self._to)

    def _stop(self, step: int) -> None:
        self._running = False
        with self._clock.paused():
            jax.profiler.stop_trace()
        say(f"profile of steps {self._from + 1} to {step}: {self._run}/plugins/profile")
