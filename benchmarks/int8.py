"""The forward in INT8 beside bfloat16: compiled for a TPU v5e without a TPU, and timed on this CPU.

    python -m benchmarks.int8 [--shapes S/16:256,S/16:32,S/8:256,S/8:32] [--forms softmax,relu] [--rows tpu,cpu,bytes]

Needs libtpu for the rows tpu: `make tpu-compiler`. One chip; no qk-layernorm. bf16: parameters and computation in bfloat16,
attention by the kernels of ops.pallas. int8: every product in int8, the rest float32, quantized at all points of quant.names,
attention by ops.pallas.int8. Ranges are made up: no time depends on them.

ms      the model of benchmarks/tpu/cost.py, nothing timed; by part, a fusion going by the operation it is named after; with a ?
        where more than a tenth of it is in operations with a loop whose passes the schedule does not tell
/ bf16  of the whole;   mxu ms: what the matrix units need at least;   HBM GB: traffic;   peak GB: memory at most

cpu: seconds of one forward of 8 images, the best of three; int8 here is what XLA makes of it, without a kernel of ours.
bytes: of the parameters.
"""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.tpu.compiler import NoCompiler, compiled, library, replicated
from benchmarks.tpu.rows import Rows
from benchmarks.tpu_step import DOUBTFUL, parts_of
from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.quant.grid import asymmetric, highest_of
from vit_attn.quant.names import names_of
from vit_attn.quant.network import IntegerNetwork, Rounded, integer_network
from vit_attn.quant.weights import weight_grids
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.quant import QuantSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of
from vit_attn.train.state import init_state

PARTS = {"projections": "projections", "MLP": "MLP", "attention": "attention", "LayerNorm": "LayerNorm"}
COLUMNS = {"": 26, "ms": 7, "/ bf16": 6, "mxu ms": 6, "HBM GB": 6, "peak GB": 7} | dict.fromkeys((*PARTS, "rest"), 11)
CPU_IMAGES, ROUNDS = 8, 3


def model_of(variant: str, h: str, dtype: str, impl: str) -> tuple[ModelSpec, Any, Numbers]:
    """(model, its parameters in float32, numbers of its attention)."""
    attention = {"qk_norm": "none", "h": h, "impl": impl}
    settings = {"variant": variant, "dtype": dtype, "remat": "none", "attention": attention}
    spec = resolve({"model": settings})
    return spec.model, init_state(spec, knobs_of(spec)).params, knobs_of(spec).attention


def integers(variant: str, h: str, fused: bool) -> tuple[ModelSpec, IntegerNetwork, Numbers]:
    """Weights by min_max, all points in [-3, 4]."""
    model, params, numbers = model_of(variant, h, "float32", "dense")
    quant = QuantSpec()
    names = names_of(model, params, quant)
    grid = asymmetric(jnp.float32(-3), jnp.float32(4), highest_of(8))
    found = Rounded(weight_grids(params, names, quant), {path: grid for path, name in names.points.items() if names.on(name)})
    return model, integer_network(model, params, names, found, numbers, fused), numbers


def forwards(variant: str, batch: int, h: str) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """(name, function, shapes of its arguments): bf16, then int8."""
    shape: Any = jax.ShapeDtypeStruct
    model, params, numbers = model_of(variant, h, "bfloat16", "pallas")
    images = (batch, model.image_size, model.image_size, 3)
    scalars = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, numbers))
    halved = jax.tree.map(lambda x: shape(x.shape, jnp.bfloat16), params)
    yield f"bf16, {h}", partial(_plain, model), (halved, scalars, shape(images, jnp.bfloat16))
    model, network, _ = integers(variant, h, fused=True)
    struct = jax.tree.map(lambda x: shape(x.shape, x.dtype), network)
    yield f"int8, {h}", partial(_int8, model), (struct, scalars, shape(images, jnp.bfloat16))


def tpu(variant: str, batch: int, forms: list[str]) -> None:
    rows, bf16 = Rows(f"ViT-{variant}, forward, batch {batch} on one v5e", COLUMNS), 0.0
    for h in forms:
        for name, function, arguments in forwards(variant, batch, h):
            program = compiled(function, *replicated(arguments))
            cost = program.cost()
            bf16 = cost.milliseconds if name.startswith("bf16") else bf16
            parts = parts_of(cost)
            rest = sum(parts.values()) - sum(parts[part] for part in PARTS)
            sizes = (f"{1e3 * cost.matrix_seconds:.2f}", f"{cost.hbm_bytes / 1e9:.2f}", f"{program.peak_bytes / 1e9:.2f}")
            ratio = f"{cost.milliseconds / bf16:.2f}"
            mark = "?" if cost.doubtful_share() > DOUBTFUL else " "
            rows.add(
                name, f"{cost.milliseconds:.2f}{mark}", ratio, *sizes, *(f"{parts[part]:.2f}" for part in PARTS), f"{rest:.2f}"
            )


def cpu(variant: str, forms: list[str]) -> None:
    rows = Rows(f"ViT-{variant}, forward of {CPU_IMAGES} images on this CPU", {"": 26, "seconds": 8, "float32/this": 12})
    for h in forms:
        model, params, numbers = model_of(variant, h, "float32", "auto")
        images = jax.random.uniform(jax.random.key(0), (CPU_IMAGES, model.image_size, model.image_size, 3)) * 2 - 1
        exact = _best(jax.jit(partial(_plain, model)), params, numbers, images)
        rows.add(f"float32, {h}", f"{exact:.2f}", "1.00")
        dense, network, _ = integers(variant, h, fused=False)
        seconds = _best(jax.jit(partial(_int8, dense)), network, numbers, images)
        rows.add(f"int8, {h}", f"{seconds:.2f}", f"{exact / seconds:.2f}")


def _plain(model: ModelSpec, params: Any, numbers: Any, images: Any) -> Any:
    return ViT(model).apply({"params": params}, images, numbers)[0]


def _int8(model: ModelSpec, network: IntegerNetwork, numbers: Any, images: Any) -> Any:
    return network(model, images, numbers)


def _best(function: Any, *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def sizes(variant: str) -> None:
    rows = Rows(f"ViT-{variant}, parameters", {"": 26, "MB": 8, "/ float32": 9})
    _, params, _ = model_of(variant, "softmax", "float32", "dense")
    _, network, _ = integers(variant, "softmax", fused=False)
    exact, small = (sum(x.nbytes for x in jax.tree.leaves(tree)) for tree in (params, network.params))
    rows.add("float32", f"{exact / 1e6:.2f}", "1.000")
    rows.add("int8", f"{small / 1e6:.2f}", f"{small / exact:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="S/16:256,S/16:32,S/8:256,S/8:32", help="variant:batch,...")
    parser.add_argument("--forms", default="softmax,relu", help="h,...")
    parser.add_argument("--rows", default="tpu,cpu,bytes", help="which")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache has no schedules
    wanted, forms = flags.rows.split(","), flags.forms.split(",")
    shapes = [(variant, int(batch)) for variant, _, batch in (shape.partition(":") for shape in flags.shapes.split(","))]
    variants = list(dict.fromkeys(variant for variant, _ in shapes))
    if "tpu" in wanted:
        try:
            library()
        except NoCompiler as error:
            parser.exit(2, f"error: {error}\n")
        for variant, batch in shapes:
            tpu(variant, batch, forms)
    for variant in variants:
        if "cpu" in wanted:
            cpu(variant, forms)
        if "bytes" in wanted:
            sizes(variant)


if __name__ == "__main__":
    main()
