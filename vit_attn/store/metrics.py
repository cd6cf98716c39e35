"""Metrics of one member: metrics.jsonl, which is the truth, and TensorBoard, which is made from the same rows."""

import json
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vit_attn.store.run_dir import RunDir

# clu imports tensorflow, which takes seconds: one thread does that, and all writing, while the step is being compiled.
_writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorboard")


class MetricsLog:
    """Writes rows in the order of their steps. Opening it forgets rows beyond `step`: a resumed run writes them again."""

    def __init__(self, run_dir: RunDir, step: int, hparams: Mapping[str, Any]) -> None:
        kept = [row for row in run_dir.metrics() if row["step"] <= step]
        run_dir.write_metrics(kept)
        self._file = open(run_dir.metrics_file, "a")  # noqa: SIM115 (it stays open as long as the log)
        self._pending: list[Future[None]] = []
        self._submit(lambda: self._open_tensorboard(run_dir, kept, dict(hparams)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row. Values that are not finite have no place in JSON and are left out."""
        row = {"step": step, **{key: value for key, value in values.items() if math.isfinite(value)}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._submit(lambda: self._write_tensorboard(row))

    def close(self) -> None:
        """Until everything is written. Raises what went wrong while writing."""
        self._submit(lambda: self._writer.close())
        for job in self._pending:
            job.result()
        self._file.close()

    def _submit(self, job: Any) -> None:
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        self._pending.append(_writing.submit(job))

    def _open_tensorboard(self, run_dir: RunDir, rows: list[dict[str, float]], hparams: dict[str, Any]) -> None:
        from clu import metric_writers

        for old in run_dir.path.glob("events.out.tfevents*"):
            old.unlink()
        self._writer = metric_writers.SummaryWriter(str(run_dir.path))
        self._writer.write_hparams(hparams)
        for row in rows:
            self._write_tensorboard(row)
        self._writer.flush()

    def _write_tensorboard(self, row: Mapping[str, float]) -> None:
        scalars = {key: value for key, value in row.items() if key != "step"}
        self._writer.write_scalars(int(row["step"]), scalars)
        self._writer.flush()
