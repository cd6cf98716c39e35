"""Runs of records of the shards that are being read as a stream, the last few of them in memory."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from vit_attn.data.decode import BadImageError
from vit_attn.data.sources.faults import persistent
from vit_attn.data.sources.shards import Shards
from vit_attn.data.sources.stream_order import Run, StreamOrder
from vit_attn.data.sources.tfrecord_file import read_records

Records = list[bytes | BadImageError]

WINDOWS_KEPT = 3  # the one in use, the next, and what is still read of the one before


class RunCache:
    """Thread-safe. A pickled one begins empty, but knows where in the files the runs begin."""

    def __init__(self, shards: Shards, order: StreamOrder, timeout_seconds: float) -> None:
        self._shards, self._order, self._timeout_seconds = shards, order, timeout_seconds
        self._offsets: list[dict[int, int]] = [{0: 0} for _ in shards.shards]  # of each file: of some records, the known bytes
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[Run, Future[Records | None]] = OrderedDict()  # the one used last at the end

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            offsets = [dict(known) for known in self._offsets]
        return {key: value for key, value in vars(self).items() if key not in ("_lock", "_runs")} | {"_offsets": offsets}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def records(self, run: Run) -> Records:
        """All records of a run. Raises BadImageError and UnreachableError."""
        while True:
            future, mine = self._claim(run)
            if mine:
                self._fill(run, future)
            records = future.result()
            if records is not None:
                return records

    def read_ahead(self, runs: Iterable[Run]) -> None:
        """Begins to read runs, in the background. They are tried once: what fails is tried again by whoever needs it."""
        for run in runs:
            future, mine = self._claim(run)
            if mine:
                # Of the daemon kind, so that the program need not wait for them at its end.
                threading.Thread(target=self._fill_ahead, args=(run, future), daemon=True).start()

    def _claim(self, run: Run) -> tuple["Future[Records | None]", bool]:
        """(the place of a run in memory, whether the caller has to fill it)."""
        with self._lock:
            future = self._runs.get(run)
            if future is not None:
                self._runs.move_to_end(run)
                return future, False
            future = self._runs[run] = Future()
            while len(self._runs) > WINDOWS_KEPT * self._order.lanes:
                self._runs.popitem(last=False)
            return future, True

    def _fill(self, run: Run, future: "Future[Records | None]") -> None:
        try:
            future.set_result(persistent(lambda: self._read(run), self._file(run), self._timeout_seconds))
        except BaseException as error:
            self._forget(run, future)
            future.set_exception(error)

    def _fill_ahead(self, run: Run, future: "Future[Records | None]") -> None:
        try:
            future.set_result(self._read(run))
        except Exception:
            self._forget(run, future)
            future.set_result(None)

    def _forget(self, run: Run, future: "Future[Records | None]") -> None:
        with self._lock:
            if self._runs.get(run) is future:
                del self._runs[run]

    def _read(self, run: Run) -> Records:
        start, stop = (self._shards.shards[run[0]].skip + into for into in self._order.bounds(run))
        with self._lock:
            known = max(record for record in self._offsets[run[0]] if record <= start)
            offset = self._offsets[run[0]][known]
        records, first, end = read_records(self._file(run), offset, start - known, stop - start)
        if not isinstance(records[-1], BadImageError):
            with self._lock:
                self._offsets[run[0]] |= {start: first, stop: end}
        return records

    def _file(self, run: Run) -> str:
        return self._shards.shards[run[0]].filename
