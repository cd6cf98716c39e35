"""When to stop: a signal, or the launcher that is gone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vit_attn.parallel.processes import watch
from vit_attn.parallel.watch import Watch

AGAIN = b"received SIGINT: saving, then ending; a second one ends at once and saves nothing\n"


class Stop:
    """Why the loop should save and end after the step at hand; "" as long as it should go on."""

    def __init__(self, parent: int | None, watch: Watch | None = None) -> None:
        self._parent, self._watch = parent, watch
        self._reason = ""
        if watch:
            watch.wants_to_stop = self._own_reason

    def after(self, step: int) -> str:
        """To be asked at the end of each step. Several processes get the same answer at the end of the same step."""
        return self._watch.stop_after(step) if self._watch else self._own_reason()

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            os.write(2, AGAIN)  # print is not made for handlers
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C twice: now, and also where Python does not get its turn
        self._reason = f"received {signal.Signals(number).name}"

    def _own_reason(self) -> str:
        if not self._reason and self._parent is not None and os.getppid() != self._parent:
            self._reason = "the launcher is gone"
        return self._reason


@contextmanager
def stopping(parent: int | None = None) -> Iterator[Stop]:
    """Turns SIGTERM, SIGINT, SIGHUP and the end of process `parent` into a request; puts the old handlers back afterwards."""
    stop = Stop(parent, watch())
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
        numbers.remove(signal.SIGHUP)
    old = {number: signal.signal(number, stop.on_signal) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
