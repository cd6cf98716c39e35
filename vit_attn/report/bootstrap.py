"""Resampling with a stated seed: how far a fitted number moves when the seeds of the runs are other ones."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
GENERATOR_SEED = 0
LEVEL = 95.0  # percent
HOW = f"{LEVEL:g} % intervals: {RESAMPLES} bootstrap samples, numpy's default_rng([{GENERATOR_SEED}, i])"


def generator(stream: int = 0) -> np.random.Generator:
    """The numbers of one fit; those that are compared take streams of their own."""
    return np.random.default_rng([GENERATOR_SEED, stream])


def resampled_means(values: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """[RESAMPLES] means of n values drawn with replacement; one value stays what it is.

    Deviations from the mean are enlarged by sqrt(n / (n - 1)): resamples of few values are too narrow by that factor.
    """
    n = len(values)
    if n < 2:
        return np.full(RESAMPLES, values[0])
    given = np.asarray(values, np.float64)
    drawn = given[rng.integers(n, size=(RESAMPLES, n))].mean(axis=1)
    return given.mean() + (drawn - given.mean()) * np.sqrt(n / (n - 1))


def interval(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(samples, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return float(low), float(high)
