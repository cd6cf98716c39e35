"""Several processes that train as one: one a host, each with its own devices. The first one writes."""

import ctypes
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_attn.parallel.cluster import Place
from vit_attn.parallel.meeting import meet
from vit_attn.parallel.watch import Watch
from vit_attn.spec.errors import RunError, UserError, one_line, tell

NEVER_SECONDS = 10**6  # jax's own watch aborts without a name: ours is always earlier
# How the errors of devices and of what connects them begin. Not all come as JaxRuntimeError: some are ValueErrors.
OF_DEVICES = re.compile("UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION")
_watch: Watch | None = None


def run_together(place: Place, what: str, join_seconds: float, silence_seconds: float, run: Callable[[], int]) -> int:
    """The exit code of `run`, called when all processes that `place` speaks of have come to run `what`.

    To be called before anything else of jax. Raises UserError if they do not come. When one of them is gone, is silent for
    `silence_seconds`, or fails, all end at once, with exit code 1, or with 2 if it failed by a UserError.
    """
    global _watch
    meeting = meet(place, what, join_seconds)
    _let_abort_wait()
    _watch = Watch(place.process, meeting, silence_seconds)
    try:
        _initialize(place, meeting.jax_port)
        code = run()
    except (UserError, RunError) as error:
        _watch.fail(one_line(error), tell(error))
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError) or OF_DEVICES.match(str(error)):
            _watch.wait_for_blame()
        traceback.print_exc()
        _watch.fail(f"{type(error).__name__}: {one_line(error)[:1000]}", 1)
    _watch.leave()
    jax.distributed.shutdown()
    return code


def _initialize(place: Place, port: int) -> None:
    host = place.coordinator.rpartition(":")[0]
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
    jax.distributed.initialize(
        f"{host}:{port}",
        place.processes,
        place.process,
        local_device_ids=place.device,
        cluster_detection_method="deactivate",
        heartbeat_timeout_seconds=NEVER_SECONDS,
        shutdown_timeout_seconds=60,
    )


def watch() -> Watch | None:
    """The one who looks after the other processes; None in a process that is alone."""
    return _watch


def _let_abort_wait() -> None:
    """Lets this process live for 6 seconds after an abort().

    jax aborts as soon as process 0, where its service runs, is gone. No setting changes that (its callback for it fails in
    jaxlib 0.10: std::bad_cast). The thread that aborts sleeps for SIGABRT = 6 seconds instead, in which the watch says what
    happened and ends the process. After them the abort goes on.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints it, once for all processes, at once. Who listened may be gone (a terminal, a pipe); a run goes on without."""
    if is_first():
        try:
            print(line, flush=True)
        except OSError:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for the rest of the process)


def from_first(tree: Any) -> Any:
    """Numpy arrays or numbers as the first process has them, on all of them (same tree and shapes everywhere)."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def word_of_first(value: Any) -> Any:
    """A JSON value as the first process has it, on all of them. All have to ask at the same point."""
    if jax.process_count() == 1:
        return value
    text = json.dumps(value if is_first() else None).encode()
    size = int(from_first(np.int32(len(text))))
    padded = np.zeros(max(4096, 1 << size.bit_length()), np.uint8)  # few sizes: each is a program of its own
    if is_first():
        padded[:size] = np.frombuffer(text, np.uint8)
    return json.loads(from_first(padded)[:size].tobytes())


def from_all(array: np.ndarray) -> np.ndarray:
    """The array of each process, stacked: [processes, ...] (same shape everywhere). All have to ask at the same point."""
    if jax.process_count() == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))


def total(count: int) -> int:
    """The sum over the processes. All have to ask at the same point."""
    if jax.process_count() == 1:
        return count
    return int(np.sum(multihost_utils.process_allgather(np.asarray(count, np.int32))))


def any_of(flag: bool) -> bool:
    """Whether it is true on one of the processes. All have to ask at the same point."""
    return bool(from_all(np.asarray(flag)).any())
