"""Checkpoints of one member: orbax's CheckpointManager (asynchronous, atomic, the last N), each array verified when read."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vit_attn.store.run_dir import RunDir


class BadCheckpointError(Exception):
    """A checkpoint that is truncated, altered, or another program's. The message says where it is and what is wrong."""


class Checkpoints:
    """The saved steps of one member. `save` returns at once; `wait` when everything is on the disk."""

    def __init__(self, run_dir: RunDir, keep: int) -> None:
        self._run_dir = run_dir
        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})  # the first process writes for all
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, create=False, multiprocessing_options=alone
        )
        run_dir.checkpoints.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(run_dir.checkpoints.absolute(), options=options)

    def steps(self) -> list[int]:
        """The complete ones, in order."""
        return sorted(self._manager.all_steps())

    def path(self, step: int) -> Path:
        return self._run_dir.checkpoints / str(step)

    def save(self, step: int, state: Any, info: dict[str, Any]) -> None:
        """Saves a pytree of arrays and a few plain values, with the fingerprint of every array."""
        arrays = jax.tree.map(np.asarray, jax.device_get(state))
        record = {**info, "fingerprints": _fingerprints(arrays)}
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(arrays), info=ocp.args.JsonSave(record)))

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """(state, info) of `step`; `like` gives the tree, shapes and shardings. Raises BadCheckpointError."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), info=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # orbax and tensorstore raise many types for a file that is not as it was written
            reason = " ".join(str(error).split())[:300]
            raise BadCheckpointError(f"checkpoint {self.path(step)} cannot be read: {reason}") from error
        state, info = restored["state"], restored["info"]
        if _fingerprints(jax.device_get(state)) != info.get("fingerprints"):
            raise BadCheckpointError(
                f"checkpoint {self.path(step)} is not what was saved: the fingerprints of its arrays differ"
            )
        return state, info

    def set_aside(self, step: int) -> None:
        """Moves a checkpoint out of the way, to refused_checkpoints/, so that its step can be saved again. Deletes nothing."""
        refused = self._run_dir.path / "refused_checkpoints"
        refused.mkdir(exist_ok=True)
        number = sum(1 for _ in refused.iterdir())
        self.path(step).rename(refused / f"{step}.{number}")
        self._manager.reload()

    def wait(self) -> None:
        """Until all saves are on the disk. Raises what went wrong there."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _fingerprints(host_arrays: Any) -> list[int]:
    """One 32-bit number an array, which any single flipped bit changes."""
    return [_fingerprint(leaf) for leaf in jax.tree.leaves(host_arrays)]


def _fingerprint(x: np.ndarray) -> int:
    """The sum of the array's words, each times an odd number that depends on its place, modulo 2^32."""
    words = np.ravel(x).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize]).astype(np.uint32)
    places = np.arange(words.size, dtype=np.uint32) * np.uint32(2 * 2654435761 % 2**32) + np.uint32(1)
    return int(np.sum(words * places, dtype=np.uint32))
