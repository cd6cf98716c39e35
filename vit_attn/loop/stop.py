"""When to stop: a signal, or the launcher that is gone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Why the loop should save and end after the step at hand; "" as long as it should go on."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._reason = ""

    def reason(self) -> str:
        if not self._reason and self._parent is not None and os.getppid() != self._parent:
            self._reason = "the launcher is gone"
        return self._reason

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._reason and number == signal.SIGINT:  # Ctrl-C twice: now
            raise KeyboardInterrupt
        self._reason = f"received {signal.Signals(number).name}"


@contextmanager
def stopping(parent: int | None = None) -> Iterator[Stop]:
    """Turns SIGTERM, SIGINT, SIGHUP and the end of process `parent` into a request; puts the old handlers back afterwards."""
    stop = Stop(parent)
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
        numbers.remove(signal.SIGHUP)
    old = {number: signal.signal(number, stop.on_signal) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
