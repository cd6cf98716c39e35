"""A linear probe: closed-form ridge regression of features onto targets of +-1, on the host, in float64.

As big_vision's fewshot_lsr: features are standardised with the mean and std (+ 1e-5) of the images that it is fitted on, a
constant feature of value 100 is appended as bias, and l2 penalises the weight of that feature like all others.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

BIAS = 100.0
STD_FLOOR = 1e-5
HELD_OUT = 5  # one image in so many of each class is held out to choose l2


class Probe(NamedTuple):
    """scores(x) = x W + b, of features as they come."""

    weights: Float64[np.ndarray, "D C"]
    offset: Float64[np.ndarray, "C"]

    def predict(self, x: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "N"]:
        """The class of the highest score; -1, which is none, for an image with a feature that is not finite."""
        finite = np.isfinite(x).all(axis=1)
        known = x if finite.all() else np.where(finite[:, None], x, 0)
        scores = known.astype(np.float64, copy=False) @ self.weights + self.offset
        return np.where(finite, scores.argmax(axis=1), -1)

    def accuracy(self, x: Float[np.ndarray, "N D"], labels: Int[np.ndarray, "N"]) -> float:
        return float((self.predict(x) == labels).sum() / max(len(labels), 1))


def fit(x: Float[np.ndarray, "N D"], labels: Int[np.ndarray, "N"], classes: int, l2: Sequence[float]) -> Probe | None:
    """The probe of `classes` classes, with the one l2 or else the one that `choose` takes.

    None without images, or if a feature is not finite. The images of a class must stand in the order in which they were drawn.
    """
    if not len(x) or not np.isfinite(x).all():
        return None
    chosen = l2[0] if len(l2) == 1 else choose(x, labels, classes, l2)
    return next(probes(x, labels, classes, [chosen]))


def choose(x: Float[np.ndarray, "N D"], labels: Int[np.ndarray, "N"], classes: int, l2: Sequence[float]) -> float:
    """The l2 with the most hits on images that are held out (of equally good ones the largest).

    Held out are the last max(1, n // 5) of the n images of each class that has at least 2; the probes that are compared are
    fitted on the others, standardisation included. With one image a class nothing can be held out: then it is the median of
    the list (of an even number, the larger of the middle two).
    """
    values = sorted(l2)
    held = held_out(labels)
    if not held.any():
        return values[len(values) // 2]
    tried = probes(x[~held], labels[~held], classes, values)
    scores = [probe.accuracy(x[held], labels[held]) for probe in tried]
    return max(zip(scores, values, strict=True))[1]


def held_out(labels: Int[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        if len(mine) > 1:
            held[mine[-max(1, len(mine) // HELD_OUT) :]] = True
    return held


def probes(x: Float[np.ndarray, "N D"], labels: Int[np.ndarray, "N"], classes: int, l2: Sequence[float]) -> Iterator[Probe]:
    """For each l2 the W, b that minimise |Z W + 100 b - Y|^2 + l2 (|W|^2 + |b|^2), Z = (x - mean) / (std + 1e-5).

    The columns of Z sum to 0, so that the two parts can be solved one by one: b = 100 sum(Y) / (100^2 N + l2), which needs no
    matrix of the bias's large entries; and W = (Z'Z + l2 I)^-1 Z'Y or, where there are fewer images than features, the same as
    Z' (ZZ' + l2 I)^-1 Y.
    """
    x = x.astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0) + STD_FLOOR
    z, y = (x - mean) / std, np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    centred = y - y.mean(axis=0)  # Z' does not see the mean, and without it nothing has to cancel
    dual = len(x) < x.shape[1]
    gram, target = (z @ z.T, centred) if dual else (z.T @ z, z.T @ centred)
    for value in l2:
        solved = np.linalg.solve(gram + value * np.eye(len(gram)), target)
        weights = (z.T @ solved if dual else solved) / std[:, None]
        bias = BIAS * y.sum(axis=0) / (BIAS**2 * len(y) + value)
        yield Probe(weights, BIAS * bias - mean @ weights)
