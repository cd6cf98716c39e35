"""One run, quantized: weights, ranges of several estimators on several subsets, and the accuracy of each."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vit_attn.data.passes import Pass
from vit_attn.data.pipeline import pass_batches
from vit_attn.data.sources.source import Source
from vit_attn.data.workers import Workers
from vit_attn.evals.classification import metrics, outputs, validation
from vit_attn.evals.evaluator import Evaluator, Outputs
from vit_attn.parallel.mesh import make_mesh, replicated, to_global
from vit_attn.quant.calibrate import Network, calibrate, roundings
from vit_attn.quant.grid import Grid
from vit_attn.quant.images import calibration_batches, calibration_source
from vit_attn.quant.names import Names, names_of
from vit_attn.quant.operation import Calibrating
from vit_attn.quant.progress import Progress
from vit_attn.quant.weights import rounded, weight_grids
from vit_attn.spec.mesh import MESH
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.quant import QuantSpec
from vit_attn.spec.run import Knobs, RunSpec, knobs_of, static_of

FLOAT, PREFIX = "float32", "val"
EVALUATED = 256  # images a device at a time
Learned = dict[str, Calibrating]  # of points, by path


@dataclass(frozen=True)
class Measured:
    """`accuracy`, `top5`, `loss` and `images` of the validation split, in float32 and of each subset of each estimator."""

    names: Names
    weights: dict[str, Grid]
    ranges: dict[str, list[Learned]]
    float32: dict[str, float]
    quantized: dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Prepared:
    """What can be refused has been: only work is left."""

    run: RunSpec
    quant: QuantSpec
    params: Any
    names: Names
    weights: dict[str, Grid]
    calibration: Source
    validation: Evaluator


def prepare(run: RunSpec, params: Any, quant: QuantSpec) -> Prepared:
    """Raises UserError for a pattern without a match, weights that are not finite, a split that is missing or overlaps."""
    run = dataclasses.replace(in_small_batches(run), model=in_float32(run.model))
    names = names_of(dataclasses.replace(run.model, scan_layers=False), params, quant)  # a scan would sort them
    evaluator = validation(run)
    source = calibration_source(run, quant, evaluator.passes["split"].source)
    return Prepared(run, quant, params, names, weight_grids(params, names, quant), source, evaluator)


def in_small_batches(run: RunSpec) -> RunSpec:
    """Points hold all attention weights, which a run's own attention may never make: it may evaluate more images at once."""
    batch_images = min(run.eval.batch_images, EVALUATED * len(jax.devices()))
    return dataclasses.replace(run, eval=dataclasses.replace(run.eval, batch_images=batch_images))


def in_float32(model: ModelSpec) -> ModelSpec:
    """Simulated on numbers that hold all of a grid's; as a loop over layers, which compiles in the time of one."""
    return dataclasses.replace(model, dtype="float32", scan_layers=True, remat="none")


def measure(ready: Prepared, progress: Progress) -> Measured:
    run, quant, knobs = ready.run, ready.quant, knobs_of(ready.run)
    mesh, view = common_mesh(quant.batch_images, run.eval.batch_images), ready.validation.passes["split"]
    static, put = static_of(run), partial(jax.device_put, device=replicated(mesh))
    knobs = put(jax.tree.map(np.float32, knobs))
    params, low_bit = put(ready.params), put(rounded(ready.params, ready.weights))
    network = Network(static.model, low_bit, knobs.attention)
    ranges: dict[str, list[Learned]] = defaultdict(list)
    with closing(Workers(0, run.data.threads)) as workers:
        for repeat in range(quant.repeats):
            images = calibration_batches(run, quant, ready.calibration, view, repeat, workers)
            batches = [to_global(mesh, {"image": image}, quant.batch_images)["image"] for image in images]
            for estimator in quant.measured:
                ranges[estimator].append(calibrate(network, ready.names, quant, estimator, batches))
                progress.did(1, f"{estimator}: calibrated on subset {repeat + 1} of {quant.repeats}")
        models = [(params, None), *((low_bit, roundings(one)) for several in ranges.values() for one in several)]
        told = lambda share: progress.did(share * len(models), f"evaluating {len(models)} networks")
        float32, *found = evaluate(static, knobs, models, view, mesh, workers, told)
    each = iter(found)
    quantized = {estimator: [next(each) for _ in several] for estimator, several in ranges.items()}
    return Measured(ready.names, ready.weights, dict(ranges), float32, quantized)


def evaluate(
    run: RunSpec,
    knobs: Knobs,
    models: list[tuple[Any, Any]],
    view: Pass,
    mesh: Mesh,
    workers: Workers,
    told: Callable[[float], None] = lambda share: None,
) -> list[dict[str, float]]:
    """The metrics of each (parameters, operations) on the validation split, whose images are read once.

    `told` hears after each batch which share of the split it was.
    """
    found: list[list[Outputs]] = [[] for _ in models]
    with closing(pass_batches(run.data, view, workers)) as batches:
        for batch in batches:
            arrays = to_global(mesh, batch, view.batch_images)
            for (params, points), outputs_of in zip(models, found, strict=True):
                outputs_of.append(jax.device_get(_outputs(run, params, knobs, arrays, points)))
            told(1 / math.ceil(len(view.indices) / view.batch_images))
    results = [metrics(PREFIX, {"split": batches}) for batches in found]
    return [{key.removeprefix(f"{PREFIX}/"): value for key, value in result.items()} for result in results]


_outputs = jax.jit(outputs, static_argnums=0)


def common_mesh(*batch_images: int) -> Mesh:
    """As many of the devices as divide all batches."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if all(images % n == 0 for images in batch_images))
    return make_mesh(MESH, devices[:count])
