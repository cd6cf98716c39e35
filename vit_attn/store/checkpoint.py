"""Checkpoints of one member: of any sharding, written by all processes, asynchronously; whole or not there."""

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from vit_attn.parallel.processes import is_first, word_of_first
from vit_attn.spec.run import LoopSpec
from vit_attn.store.fingerprint import fingerprints
from vit_attn.store.kept import Metrics, kept
from vit_attn.store.paths import paths_of
from vit_attn.store.place import place_of
from vit_attn.store.restore import check_tree, read_arrays, read_info, read_rows, sealed, unsealed
from vit_attn.store.run_dir import RunDir
from vit_attn.store.tree_diff import described


class Checkpoints:
    """The saved steps of one member, for the processes that train it. All of them have to call its methods together.

    STEP/state    the arrays, each process's part by itself
    STEP/info     {config, step, ..., metrics, arrays: {path: [type and shape, fingerprint]}, checksum}
    STEP/metrics  {rows, checksum}: metrics.jsonl until then, where checkpoints lie apart from the run's directory
    """

    def __init__(self, run_dir: RunDir, loop: LoopSpec) -> None:
        """Deletes what a kill has left half-written."""
        self._place, self._loop = place_of(run_dir.path, loop), loop
        if is_first():
            self._place.checkpoints.mkdir(parents=True, exist_ok=True)
            self._place.sweep()
        self._saved: dict[int, Metrics] = dict(word_of_first(self._on_disk() if is_first() else None))
        mine = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=str(self._place.root))  # a pack saves many at a time
        self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), multiprocessing_options=mine)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finish-save")
        self._finishing: Future[None] | None = None

    @property
    def apart(self) -> bool:
        """Whether they lie elsewhere than the run."""
        return self._place.apart

    def steps(self) -> list[int]:
        """The complete ones, and one that is being saved, in order."""
        return sorted(self._saved)

    def path(self, step: int) -> epath.Path:
        return self._place.path(step)

    def save(
        self,
        step: int,
        state: Any,
        info: Mapping[str, Any],
        metrics: Metrics | None = None,
        rows: list[dict[str, float]] | None = None,
    ) -> None:
        """Saves a tree of arrays and a few plain values. When it returns, the state's memory may be reused.

        `metrics`: by which the best is chosen; `rows`: metrics.jsonl so far. Both as the first process has them. Waits for the
        save before, and raises what went wrong in it. What is no longer kept is deleted once this one is complete.
        """
        self.wait()
        with jax.transfer_guard("allow"):  # orbax's ways to the host, and the words between processes
            self._start(step, state, info, metrics, rows)

    def _start(self, step: int, state: Any, info: Mapping[str, Any], metrics: Metrics | None, rows: Any) -> None:
        state = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else jnp.asarray(x), state)
        finite = word_of_first({key: value for key, value in (metrics or {}).items() if math.isfinite(value)})
        numbers, _ = fingerprints(state)
        arrays = {path: (kind, numbers[path]) for path, kind in described(paths_of(state)).items()}
        record = sealed({**info, "metrics": finite, "arrays": arrays})
        items = {"state": ocp.args.StandardSave(state), "info": ocp.args.JsonSave(record)}
        if self.apart:
            items["metrics"] = ocp.args.JsonSave(sealed({"rows": rows or []}))
        self._writer.save(self.path(step), args=ocp.args.Composite(**items))
        self._saved[step] = finite
        old = sorted(self._saved.keys() - kept(self._saved, self._loop))
        for one in old:
            del self._saved[one]
        self._finishing = self._thread.submit(self._finish, old)

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """(state, info) of `step`; `like` gives the tree, global shapes and shardings, and may be of another mesh and another
        number of processes than at the save. Raises BadCheckpointError, and OtherTreeError before an array is read."""
        folder = self.path(step)
        info = read_info(folder)
        check_tree(folder, info, like)
        return read_arrays(folder, info, like), info

    def rows(self, step: int) -> list[dict[str, float]] | None:
        """metrics.jsonl as it was at `step`; None where the run's own directory has it."""
        return read_rows(self.path(step)) if self.apart else None

    def set_aside(self, step: int) -> None:
        """Moves a checkpoint out of the way, to refused_checkpoints/, so that its step can be saved again. Deletes nothing."""
        if is_first():
            self._place.set_aside(step)
        del self._saved[step]

    def wait(self) -> None:
        """Until all saves are on the disk. Raises what went wrong there."""
        if self._finishing is not None:
            finishing, self._finishing = self._finishing, None
            finishing.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._writer.close()

    def _finish(self, old: list[int]) -> None:
        self._writer.wait_until_finished()
        for step in old if is_first() else ():
            self._place.delete(step)

    def _on_disk(self) -> list[tuple[int, Metrics]]:
        """The saved steps with their metrics, read side by side: there may be many, far away."""

        def metrics(step: int) -> Metrics:
            with suppress(Exception):  # a bad one is refused where it is restored
                return unsealed(self.path(step), "info")["metrics"]
            return {}

        steps = self._place.steps()
        with ThreadPoolExecutor(8) as pool:
            return list(zip(steps, pool.map(metrics, steps), strict=True))
