"""Several processes that train as one: one a host, each with its own devices. The first one writes."""

import json
import os
import sys
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_attn.spec.errors import UserError

JOIN_SECONDS = 300


def join(coordinator: str, processes: int, process: int) -> None:
    """Makes this one process `process` of `processes`, which meet at the address `coordinator` of the first one.

    To be called before anything else of jax. Raises UserError if they do not all come.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--process={process} of --processes={processes} could not meet the others at --coordinator={coordinator}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


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
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
