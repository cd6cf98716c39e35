"""Ticks of matplotlib's axes: at the values that were trained, and plain numbers on logarithmic axes."""

import math
from collections.abc import Sequence

from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

MOST = 6  # labels side by side in a narrow panel
FEWEST_DECADES = 1.5  # below, a logarithmic axis has ticks at 2 and 5 too


def ticks_at(axis: Axis, values: Sequence[float]) -> None:
    """At every value, or every second, third ... one, so that labels do not touch; by matplotlib's choice if there are many."""
    if len(values) <= 3 * MOST:
        some = values[:: math.ceil(len(values) / MOST) or 1]
        axis.set_ticks(some, [f"{value:g}" for value in some])


def log_ticks(axis: Axis, low: float, high: float) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) < FEWEST_DECADES else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
