"""Batches on their way from the host to the devices, one ahead of the step, and what is known about that way."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import psutil

from vit_attn.data.pipeline import Batches, Reading, too_many_bad
from vit_attn.loop.program import Program
from vit_attn.parallel.processes import total
from vit_attn.spec.run import RunSpec


class Feed:
    """The batch of the next step, brought to the devices while they work on this one."""

    def __init__(self, batches: Batches, program: Program, spec: RunSpec, step: int, bad_images: int = 0) -> None:
        self._batches, self._program, self._spec = batches, program, spec
        self._left = spec.train.steps - step
        self._fetched, self._last = step, Reading()
        self._bad = {step: bad_images}  # step -> damaged images in the batches up to it, over all restarts, of this process
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="watch-step")
        self._in_flight: Any = None
        self._done_at: Future[float] | None = None
        self._waited = 0.0
        self._batch: dict[str, jax.Array] | None = None
        self._fetch()

    def bad_images(self, step: int) -> int:
        """In the batches of all updates up to `step`, over all restarts and processes. All of these have to ask."""
        data = self._spec.data
        if data.on_bad_image != "skip":
            return 0
        bad = total(self._bad[step])
        if bad > data.max_bad_share * max(step * self._spec.train.batch_images, self._batches.examples):
            raise too_many_bad(bad, self._batches.name, data)
        return bad

    def take(self) -> dict[str, jax.Array]:
        """The batch of this step."""
        assert self._batch is not None
        batch, self._batch = self._batch, None
        return batch

    def refill(self, results: Any) -> None:
        """Fetches the next batch. `results` are those of the step that the devices have just been given.

        Waits for the step before that one, so that the host does not run ahead and heap up batches on the devices.
        """
        jax.block_until_ready(self._in_flight)
        self._in_flight = results
        self._done_at = self._watcher.submit(_when_ready, results)
        self._fetch()

    def metrics(self, step: int, seconds: float) -> dict[str, float]:
        """Since the last call, `seconds` of training ago: the share of them that the devices had to wait for data, ..."""
        now = Reading(**vars(self._batches.reading))
        images, busy = now.images - self._last.images, now.seconds - self._last.seconds
        waited, self._waited, self._last = self._waited, 0.0, now
        row = {"data/wait": min(waited / max(seconds, 1e-9), 1.0), "memory/resident_mib": resident_mib()}
        if busy > 0:
            row["data/images_per_second_per_worker"] = images / busy
        if self._spec.data.on_bad_image == "skip":
            row["data/bad_images"] = float(self.bad_images(step))
        return row

    def close(self) -> None:
        self._watcher.shutdown(wait=False, cancel_futures=True)

    def _fetch(self) -> None:
        if self._left > 0:
            self._left -= 1
            before = self._batches.reading.bad
            batch = self._timed(lambda: next(self._batches))
            self._fetched += 1
            self._bad[self._fetched] = self._bad[self._fetched - 1] + self._batches.reading.bad - before
            self._bad.pop(self._fetched - 4, None)  # who asks, asks for one of the last two steps
            self._batch = self._program.put(batch, self._spec.train.batch_images)

    def _timed(self, wait: Callable[[], Any]) -> Any:
        """Counts the part of a wait in which no step is in flight: only that is lost."""
        start = time.monotonic()
        result = wait()
        end = time.monotonic()
        if self._done_at is None:
            self._waited += end - start
        elif self._done_at.done():
            self._waited += max(0.0, end - max(start, self._done_at.result()))
        return result


def resident_mib() -> float:
    """Memory of this process and its workers, shared pages counted once a process."""
    this = psutil.Process()
    total = 0
    for process in (this, *this.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def _when_ready(results: Any) -> float:
    jax.block_until_ready(results)
    return time.monotonic()
