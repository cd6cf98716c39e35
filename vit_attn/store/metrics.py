"""What one member measures: metrics.jsonl and histograms.jsonl, the truth, and TensorBoard, made from both."""

import json
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_attn.store.run_dir import RunDir, read_rows, write_rows

# clu imports tensorflow, which takes seconds: one thread does that, and all writing, while the step is being compiled.
_writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorboard")


class Histogram(NamedTuple):
    """Counts of numbers in equal parts of [low, high]."""

    low: float
    high: float
    counts: list[int]


class MetricsLog:
    """Writes rows in the order of their steps. Opening it forgets rows beyond `step`: a resumed run writes them again."""

    def __init__(self, run_dir: RunDir, step: int, hparams: Mapping[str, Any]) -> None:
        kept = _keep(run_dir.metrics_file, step)
        self._file = open(run_dir.metrics_file, "a")  # noqa: SIM115 (it stays open as long as the log)
        self._histograms_file = run_dir.histograms_file  # there from the first histogram on
        histograms = _keep(self._histograms_file, step) if self._histograms_file.exists() else []
        self._pending: list[Future[None]] = []
        self._submit(lambda: self._open_tensorboard(run_dir, kept, histograms, dict(hparams)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row. Values that are not finite have no place in JSON and are left out."""
        row = {"step": step, **{key: value for key, value in values.items() if math.isfinite(value)}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._submit(lambda: self._write_tensorboard(row))

    def write_histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        """One row, under the tags of `values`. A histogram whose ends are not finite is left out."""
        row = {"step": step, **{tag: one for tag, one in values.items() if math.isfinite(one.low) and math.isfinite(one.high)}}
        with open(self._histograms_file, "a") as file:
            file.write(json.dumps(row) + "\n")
        self._submit(lambda: self._write_tensorboard_histograms(row))

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

    def _open_tensorboard(
        self, run_dir: RunDir, rows: list[dict[str, Any]], histograms: list[dict[str, Any]], hparams: dict[str, Any]
    ) -> None:
        from clu import metric_writers

        for old in run_dir.path.glob("events.out.tfevents*"):
            old.unlink()
        self._writer = metric_writers.SummaryWriter(str(run_dir.path))
        self._writer.write_hparams(hparams)
        for row in rows:
            self._write_tensorboard(row)
        for row in histograms:
            self._write_tensorboard_histograms(row)
        self._writer.flush()

    def _write_tensorboard(self, row: Mapping[str, float]) -> None:
        scalars = {key: value for key, value in row.items() if key != "step"}
        self._writer.write_scalars(int(row["step"]), scalars)
        self._writer.flush()

    def _write_tensorboard_histograms(self, row: Mapping[str, Any]) -> None:
        from tensorboard.plugins.histogram.metadata import create_summary_metadata

        buckets = {tag: _buckets(Histogram(*value)) for tag, value in row.items() if tag != "step"}
        kind = create_summary_metadata(display_name=None, description=None)
        self._writer.write_summaries(int(row["step"]), buckets, dict.fromkeys(buckets, kind))
        self._writer.flush()


def _keep(file: Path, step: int) -> list[dict[str, Any]]:
    """The rows up to `step`; the file then holds no others."""
    kept = [row for row in read_rows(file) if row["step"] <= step]
    write_rows(file, kept)
    return kept


def _buckets(histogram: Histogram) -> np.ndarray:
    """[buckets, 3]: left edge, right edge, count, as TensorBoard's plug-in reads them."""
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    return np.stack([edges[:-1], edges[1:], histogram.counts], axis=1)
