"""The best alpha of a curve: a parabola about its highest mean, and a bootstrap interval over seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vit_attn.report.bootstrap import generator, interval, resampled_means
from vit_attn.report.series import Point

WINDOW = 0.5  # alphas so near to the best one of the grid take part in the fit, and its two neighbours always


class BestAlpha(NamedTuple):
    """alpha at the maximum, the metric there, its interval (None: one seed), and why it is missing or what limits it."""

    alpha: float | None
    value: float | None
    low: float | None
    high: float | None
    note: str


def best_alpha(points: Sequence[Point], higher_is_better: bool = True) -> BestAlpha:
    """Least squares of value = a + b alpha + c alpha^2 over the alphas within WINDOW of the best mean; alpha = -b / (2 c).

    At an end of the grid the best alpha is that end, for the maximum may lie beyond. Seeds of each alpha are resampled
    independently of those of the others.
    """
    alphas = np.array([point.x for point in points], np.float64)
    if len(alphas) < 3:
        return BestAlpha(None, None, None, None, f"not enough points: {len(alphas)} of at least 3 alphas")
    sign = 1.0 if higher_is_better else -1.0
    means = sign * np.array([[point.mean for point in points]])
    peak, height = _maxima(alphas, means)
    found = float(peak[0])
    note = "at the end of the grid: it may lie beyond" if found in (alphas[0], alphas[-1]) else ""
    seeds = min(len(point.values) for point in points)
    if seeds < 2:
        return BestAlpha(found, sign * float(height[0]), None, None, note or "no interval: an alpha has one seed")
    rng = generator()
    drawn = sign * np.stack([resampled_means(point.values, rng) for point in points], axis=1)
    low, high = interval(_maxima(alphas, drawn)[0])
    return BestAlpha(found, sign * float(height[0]), low, high, note)


def _maxima(alphas: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alphas [A] ascending, means [R, A] -> for each of R curves, the alpha of its maximum and the value there."""
    top = means.argmax(axis=1)
    peak, height = alphas[top], means.max(axis=1)
    for index in range(1, len(alphas) - 1):  # an inner maximum; all curves that have it there share one fit
        curves = np.flatnonzero(top == index)
        near = np.flatnonzero(np.abs(alphas - alphas[index]) <= WINDOW + 1e-9)
        window = slice(min(near[0], index - 1), max(near[-1], index + 1) + 1)
        x = alphas[window] - alphas[index]
        c, b, a = np.polyfit(x, means[curves, window].T, 2)
        bent = c < 0
        x0 = np.clip(np.where(bent, -b / np.where(bent, 2 * c, 1.0), 0.0), x[0], x[-1])
        peak[curves] = alphas[index] + x0
        height[curves] = np.where(bent, a + b * x0 + c * x0**2, height[curves])
    return peak, height
