"""Who reads and decodes: threads of this process, or processes of their own. A worker that dies is replaced."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

MOST_DEATHS = 20  # of workers, in a row, without a piece of work done in between


class WorkersDieError(Exception):
    """Worker processes die again and again, as by the kernel when memory is out."""


class Job:
    """A piece of work under way. `result` waits for it, also over the death of the worker that had it."""

    def __init__(self, workers: "Workers", work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._workers, self._work, self._args = workers, work, args
        self.future: Future[Any] | None = None
        self.pool: Executor | None = None

    def start(self, pool: Executor) -> None:
        """May start worker processes, which inherit what is blocked: Ctrl-C at a terminal goes to them, too."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.pool, self.future = pool, pool.submit(self._work, *self._args)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def is_done(self) -> bool:
        """Whether it has come to an end, other than by the death of its worker."""
        return self.future is not None and self.future.done() and not isinstance(self.future.exception(), BrokenProcessPool)

    def result(self, timeout_seconds: float) -> Any:
        """What the work returned; raises what it raised, TimeoutError, and WorkersDieError."""
        while True:
            assert self.future is not None
            try:
                result = self.future.result(timeout_seconds)
            except BrokenProcessPool as error:
                self._workers.replace(self.pool, error)
            except FutureTimeoutError:
                raise TimeoutError from None
            else:
                self._workers.done(self)
                return result

    def cancel(self) -> None:
        if self.future is not None:
            self.future.cancel()
        self._workers.done(self, alive=False)


class Workers:
    """`processes` worker processes (-1: one a core), or, if that is 0, `threads` threads.

    Processes end with this one, however it ends.
    """

    def __init__(self, processes: int = 0, threads: int = 1) -> None:
        self.processes = available_cores() if processes < 0 else processes
        self.parallel = self.processes or threads
        self._deaths = 0
        self._jobs: dict[int, Job] = {}  # under way, the oldest first
        self._pool = self._new_pool()

    def submit(self, work: Callable[..., Any], *args: Any) -> Job:
        job = Job(self, work, args)
        self._jobs[id(job)] = job
        try:
            job.start(self._pool)
        except BrokenProcessPool as error:
            self.replace(self._pool, error)
        return job

    def done(self, job: Job, alive: bool = True) -> None:
        self._jobs.pop(id(job), None)
        if alive:
            self._deaths = 0

    def replace(self, broken: Executor | None, error: BaseException) -> None:
        """New workers for those of the pool `broken`, and all unfinished work once more; it is a function of its arguments."""
        while broken is self._pool:
            self._deaths += 1
            if self._deaths > MOST_DEATHS:
                raise WorkersDieError(f"worker processes died {self._deaths} times with nothing done in between") from error
            broken.shutdown(wait=False)
            self._pool = self._new_pool()
            try:
                for job in self._jobs.values():
                    if not job.is_done():
                        job.start(self._pool)
            except BrokenProcessPool:  # the new ones die as well
                broken = self._pool

    def close(self) -> None:
        """Cancels what has not begun, and lets the workers end after what they have in hand."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _new_pool(self) -> Executor:
        if not self.processes:
            return ThreadPoolExecutor(self.parallel, thread_name_prefix="decode")
        fresh = multiprocessing.get_context("spawn")  # a fork of a process with jax's threads may hang
        return ProcessPoolExecutor(self.processes, mp_context=fresh, initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
