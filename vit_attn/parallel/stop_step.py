"""After which step all processes stop, when one of them has to: the same for all, and one that none has passed."""

import threading
from collections.abc import Callable
from typing import Any

BEFORE_ALL = -1


class StopStep:
    """Agrees on the step without a collective operation, and without a word as long as nobody wants to stop. (A step here is
    whatever all loops count alike: see Watch.stop_after.)

    Process 0 says `freeze`. From then on the loop of each process waits at the end of its next step, after its thread has
    answered, once, with the last step p_i whose end the loop has left behind. Process 0 tells the largest p_i, plus one. No
    loop has left the end of that step behind, since none leaves the end of step p_i + 1 without knowing it. The answers come
    from the threads, which no computation holds up, so that no loop waits for another one.
    """

    def __init__(self, process: int, processes: int, tell: Callable[[dict[str, Any]], None]) -> None:
        self._me, self._processes, self._tell = process, processes, tell
        self._changed = threading.Condition()
        self._reason = ""
        self._left = BEFORE_ALL  # the last step whose end the loop has left behind
        self._left_by: dict[int, int] = {}  # of process 0: the answers
        self._until: int | None = None

    @property
    def begun(self) -> bool:
        return bool(self._reason)

    def after(self, step: int) -> str:
        """Called by the loop at the end of `step`: why to stop there, or ""."""
        with self._changed:
            self._changed.wait_for(lambda: not self._reason or self._until is not None)
            if self._until is not None and step >= self._until:
                return self._reason
            self._left = step
            return ""

    def begin(self, reason: str) -> None:
        """Process 0 only: somebody has to stop."""
        if not self._reason:
            self._tell({"say": "freeze", "reason": reason})
            self._answer(self._me, self._freeze(reason))

    def take(self, peer: int, message: dict[str, Any]) -> None:
        """What the other processes say of it."""
        match message["say"]:
            case "freeze":
                self._tell({"say": "at", "step": self._freeze(message["reason"])})
            case "at":
                self._answer(peer, message["step"])
            case "until":
                self._decide(message["step"])

    def _freeze(self, reason: str) -> int:
        with self._changed:
            self._reason = reason
            return self._left

    def _answer(self, process: int, step: int) -> None:
        self._left_by[process] = step
        if len(self._left_by) == self._processes:
            until = max(self._left_by.values()) + 1
            self._tell({"say": "until", "step": until})
            self._decide(until)

    def _decide(self, until: int) -> None:
        with self._changed:
            self._until = until
            self._changed.notify_all()
