"""The INT8 member of a quantized run, and its files, which lie in the directory int8/ beside ranges.json.

parameters.safetensors   quantized weights as int8, each with its scale as PATH:scale; the others (biases, ...) in float32
ranges.json              scale and zero of each quantized point, 0 <= integer < 2^bits; run, step, accuracies, bytes
model.stablehlo          on demand: images (bytes) -> logits, without this package (see interop.stablehlo)

The ranges are those of the best estimator on the first subset: what results.json has as its `repeats`, number 0.
"""

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from vit_attn.data.workers import Workers
from vit_attn.evals.classification import validation
from vit_attn.interop.files import write_arrays
from vit_attn.interop.stablehlo import serialized_function, write_program
from vit_attn.ops.augment.pixels import normalize
from vit_attn.parallel.mesh import replicated
from vit_attn.parallel.processes import say
from vit_attn.quant.files import INT8, RANGES
from vit_attn.quant.grid import Grid, highest_of
from vit_attn.quant.measure import common_mesh, evaluate, in_float32, in_small_batches
from vit_attn.quant.names import Names, names_of
from vit_attn.quant.network import IntegerNetwork, Rounded, integer_network
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.quant import QuantSpec, as_values, resolve_quant
from vit_attn.spec.run import RunSpec, knobs_of, static_of
from vit_attn.store.paths import nested, paths_of
from vit_attn.store.run_dir import write_json

PARAMETERS, PROGRAM = "parameters.safetensors", "model.stablehlo"
SCALE = ":scale"


def is_written(out: Path, results: dict[str, Any], program: bool) -> bool:
    """Whether the member of these results is there, and its program if that is wanted."""
    folder = out / INT8
    return INT8 in results and (folder / RANGES).exists() and (not program or (folder / PROGRAM).exists())


def write_int8(
    out: Path, spec: RunSpec, step: int, params: Any, quant: QuantSpec, results: dict[str, Any], program: bool
) -> dict[str, float]:
    """Builds the member of the ranges in `out`, evaluates it, and writes its files; ranges.json comes last. Its metrics."""
    estimator, folder = results["best"], out / INT8
    found = json.loads((out / RANGES).read_text())
    names = _names(spec.model, params, quant)
    rounded = _rounded(names, quant, found["weight_scales"], found["activations"][estimator][0])
    network = integer_network(in_float32(spec.model), params, names, rounded, knobs_of(spec).attention, on_tpu())
    folder.mkdir(exist_ok=True)
    arrays = files_of(params, rounded)
    write_arrays(folder / PARAMETERS, arrays)
    if program:
        plain = integer_network(in_float32(spec.model), params, names, rounded, knobs_of(spec).attention)
        write_program(folder / PROGRAM, program_of(spec, plain))
    accuracy = evaluated(spec, network)
    simulated = results["estimators"][estimator]["repeats"][0]
    sizes = {"float32": sum(4 * x.size for x in jax.tree.leaves(params)), "int8": sum(x.nbytes for x in arrays.values())}
    told = {"run": results["run"], "step": step, "config": as_values(quant), "estimator": estimator, "int8": accuracy}
    points = {name: {key: row[key] for key in ("scale", "zero")} for name, row in found["activations"][estimator][0].items()}
    told |= {"simulated": simulated, "parameter_bytes": sizes, "float_kernels": float_kernels(network)}
    write_json(folder / RANGES, {**told, "activations": points})
    share = sizes["int8"] / sizes["float32"]
    say(
        f"{folder}: INT8 accuracy {accuracy['accuracy']:.4f} (simulated {simulated['accuracy']:.4f}, {estimator}); "
        f"parameters {sizes['int8']} bytes, {share:.3f} of float32"
    )
    return accuracy


def load_int8(folder: Path, spec: RunSpec) -> IntegerNetwork:
    """What `write_int8` left in `folder`, for the run with these settings."""
    arrays, told = safetensors.numpy.load_file(folder / PARAMETERS), json.loads((folder / RANGES).read_text())
    quant = resolve_quant(told["config"])
    scales = {path.removesuffix(SCALE): scale for path, scale in arrays.items() if path.endswith(SCALE)}
    leaves = {path: x for path, x in arrays.items() if not path.endswith(SCALE)}
    params = nested({path: jnp.asarray(x * scales[path] if path in scales else x) for path, x in leaves.items()})
    names = _names(spec.model, params, quant)
    by_name = {names.weights[path]: scale for path, scale in scales.items()}
    rounded = _rounded(names, quant, by_name, told["activations"])
    return integer_network(in_float32(spec.model), params, names, rounded, knobs_of(spec).attention, on_tpu())


def files_of(params: Any, rounded: Rounded) -> dict[str, np.ndarray]:
    """Arrays by path, and scales."""
    arrays = {}
    for path, x in paths_of(params).items():
        if path in rounded.weights:
            grid = rounded.weights[path]
            arrays[path], arrays[path + SCALE] = np.asarray(grid.integers(x), np.int8), np.asarray(grid.scale, np.float32)
        else:
            arrays[path] = np.asarray(x, np.float32)
    return arrays


def float_kernels(network: IntegerNetwork) -> list[str]:
    """Those that are multiplied in floating point: excluded, of gates, or of inputs that have no grid."""
    return [path for path, x in paths_of(network.params).items() if path.endswith("kernel") and x.dtype != jnp.int8]


def program_of(spec: RunSpec, network: IntegerNetwork) -> bytes:
    """StableHLO: images in bytes -> logits."""
    model, numbers = uniform(in_float32(spec.model), network), knobs_of(spec).attention
    return serialized_function(lambda images: network(model, normalize(images), numbers), model.image_size)


def evaluated(spec: RunSpec, network: IntegerNetwork) -> dict[str, float]:
    """Its metrics on the validation split."""
    spec = dataclasses.replace(in_small_batches(spec), model=uniform(in_float32(spec.model), network))
    view, mesh = validation(spec).passes["split"], common_mesh(spec.eval.batch_images)
    put = lambda tree: jax.device_put(tree, replicated(mesh))
    knobs = put(jax.tree.map(np.float32, knobs_of(spec)))
    with closing(Workers(0, spec.data.threads)) as workers:
        return evaluate(static_of(spec), knobs, [put(tuple(network))], view, mesh, workers)[0]


def uniform(model: ModelSpec, network: IntegerNetwork) -> ModelSpec:
    """With the layers as a loop only if all blocks have operations of one structure: exclusions may differ."""
    blocks = [network.params["Transformer"], network.points["Transformer"]]
    each = [[tree[f"encoderblock_{index}"] for tree in blocks] for index in range(model.depth)]
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), block) for block in each]
    return dataclasses.replace(model, scan_layers=all(shape == shapes[0] for shape in shapes))


def on_tpu() -> bool:
    return jax.default_backend() == "tpu"


def _names(model: ModelSpec, params: Any, quant: QuantSpec) -> Names:
    return names_of(dataclasses.replace(in_float32(model), scan_layers=False), params, quant)


def _rounded(names: Names, quant: QuantSpec, scales: dict[str, Any], points: dict[str, Any]) -> Rounded:
    """Grids of what files say, by path."""
    half, highest = 2.0 ** (quant.weight_bits - 1), highest_of(quant.activation_bits)
    number = jnp.float32

    def of_weight(scale: Any) -> Grid:
        scale = jnp.asarray(scale, number)
        scale = scale.reshape(()) if scale.size == 1 else scale  # a file's scalar has one axis
        return Grid(scale, jnp.zeros_like(scale), number(-half), number(half - 1))

    def of_point(row: dict[str, float]) -> Grid:
        return Grid(number(row["scale"]), number(row["zero"]), jnp.zeros_like(highest), highest)

    weights = {path: of_weight(scales[name]) for path, name in names.weights.items() if name in scales}
    return Rounded(weights, {path: of_point(points[name]) for path, name in names.points.items() if name in points})
