"""Error against compute: error = factor * compute^-exponent, and the compute that one form needs for another's error."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vit_attn.report.bootstrap import RESAMPLES, generator, interval

FEWEST = 3  # points: two of them fit any power law exactly


class PowerLaw(NamedTuple):
    """Natural logarithms: log error = intercept + slope * log compute. `drawn` are [RESAMPLES, 2] other (intercept, slope)."""

    intercept: float
    slope: float
    drawn: np.ndarray

    @property
    def exponent(self) -> tuple[float, float, float]:
        """(exponent, low, high)."""
        low, high = interval(-self.drawn[:, 1])
        return -self.slope, low, high

    def error_at(self, compute: np.ndarray) -> np.ndarray:
        return np.exp(self.intercept + self.slope * np.log(compute))


class Ratio(NamedTuple):
    """Compute of one form over that of another at the same `error`; None, with a note, where there is no such number."""

    ratio: float | None
    low: float | None
    high: float | None
    error: float | None
    note: str = ""


def power_law(compute: Sequence[float], errors: Sequence[float], stream: int = 0) -> PowerLaw | None:
    """Least squares between logarithms, one point a model size. None: fewer than FEWEST different computes, or an error of 0.

    Bootstrap of the residuals, enlarged by sqrt(n / (n - 2)): they hold the noise of seeds, and that no power law is exact.
    """
    if len(set(compute)) < FEWEST or min(errors) <= 0 or min(compute) <= 0:
        return None
    x, y = np.log(compute), np.log(errors)
    slope, intercept = np.polyfit(x, y, 1)
    fitted = intercept + slope * x
    residuals = (y - fitted) * np.sqrt(len(x) / (len(x) - 2))
    samples = fitted + generator(stream).choice(residuals, size=(RESAMPLES, len(x)))
    slopes, intercepts = np.polyfit(x, samples.T, 1)
    return PowerLaw(float(intercept), float(slope), np.stack([intercepts, slopes], axis=1))


def compute_ratio(law: PowerLaw | None, reference: PowerLaw | None, errors: tuple[float, float]) -> Ratio:
    """Compute by `law` over that by `reference`, at the geometric mean of `errors`: ends of a range that both have reached."""
    if law is None or reference is None:
        return Ratio(None, None, None, None, f"not enough points: at least {FEWEST} model sizes of each are needed")
    low, high = errors
    if low > high:
        return Ratio(None, None, None, None, "no accuracy that both have reached")
    if law.slope >= 0 or reference.slope >= 0:
        return Ratio(None, None, None, None, "the error does not fall with compute")
    error = float(np.sqrt(low * high))

    def log_compute(intercept: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return (np.log(error) - intercept) / slope

    pairs = np.array([[*law[:2]]]), np.array([[*reference[:2]]])
    ratio = np.exp(np.subtract(*(log_compute(*pair.T) for pair in pairs)))[0]
    falling = (law.drawn[:, 1] < 0) & (reference.drawn[:, 1] < 0)
    samples = np.exp(np.subtract(*(log_compute(*one.drawn[falling].T) for one in (law, reference))))
    return Ratio(float(ratio), *interval(samples), error)
