"""What an evaluator is: images in passes, a pure function that the devices run on each batch, and numbers from all of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from jaxtyping import Array

from vit_attn.data.passes import Pass, View
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.data.views import Fit, Method
from vit_attn.spec.data import SetSpec
from vit_attn.spec.run import Knobs, RunSpec

Outputs = dict[str, np.ndarray]  # of one batch, on the host
Compute = Callable[[Any, Knobs, dict[str, Array]], dict[str, Array]]  # parameters, knobs, batch of a pass -> outputs


@dataclass(frozen=True)
class Evaluator:
    """One entry of config.evals, ready to run. `metrics` gets the outputs of every batch, by the name of the pass."""

    prefix: str  # of its metrics
    steps: int  # it runs every so many steps and at the end; 0: only at the end
    program: str  # evaluators of one program have the same `compute` and the same shapes: it is compiled once
    compute: Compute
    passes: dict[str, Pass]
    metrics: Callable[[dict[str, list[Outputs]]], dict[str, float]]
    notes: list[str] = field(default_factory=list)  # said at the start, as which data sets are missing


def whole_pass(spec: RunSpec, source: Source, max_labels: int, num_classes: int | None, first: int | None = None) -> Pass:
    """All examples of a split, or the `first` ones, as config.eval sees them."""
    e = spec.eval
    view = View(spec.model.image_size, cast(Fit, e.resize), e.resize_pixels, cast(Method, e.resize_method))
    count = len(source) if first is None else min(first, len(source))
    return Pass(source, view, e.batch_images, range(count), max_labels, num_classes)


def complete(spec: RunSpec, data: SetSpec) -> SetSpec:
    """The split that an evaluator means: what it leaves out is as in config.data; but a set of its own has its own version."""
    whole, own = spec.data.split(spec.eval.split), data.name is not None
    values = {name: getattr(whole, name) if value is None else value for name, value in vars(data).items()}
    if own:
        values["version"] = data.version
    return SetSpec(**values)


def open_split(spec: RunSpec, data: SetSpec, num_classes: int | None, where: str) -> Source:
    """Raises UserError, naming the settings below `where`, for what is not there."""
    d = spec.data
    return open_source(data, num_classes, stream_window=d.stream_window, timeout_seconds=d.timeout_seconds, where=where)
