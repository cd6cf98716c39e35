"""How far the work on all members has come, and how long the rest will take."""

import time
from datetime import timedelta

from vit_attn.parallel.processes import say
from vit_attn.spec.quant import QuantSpec


class Progress:
    """Counts parts: of each member, a calibration and an evaluation of each quantized network, and one of the float one."""

    def __init__(self, members: int, quant: QuantSpec) -> None:
        self._of_member = 2 * len(quant.measured) * quant.repeats + 1
        self._all = float(members * self._of_member)
        self._done = self._done_before = 0.0  # before: by the members that are over
        self._start = time.monotonic()

    def did(self, parts: float, what: str) -> None:
        """Notes `parts` of the present member as done, and says so."""
        self._done += parts
        left = (time.monotonic() - self._start) * (self._all / self._done - 1)
        say(f"{what} | {self._done / self._all:.0%} of all | ETA {timedelta(seconds=round(max(left, 0)))}")

    def member_over(self) -> None:
        """What the present member has not done (it failed, or was complete) is not to come any more."""
        self._all -= self._of_member - (self._done - self._done_before)
        self._done_before = self._done
