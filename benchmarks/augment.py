"""Augmentation beside the training step: compiled for a TPU v5e without a TPU, and measured on this CPU.

    python -m benchmarks.augment [--batch 128] [--layers 2] [--magnitude 15] [--impl pallas] [--images 32] [--pairs 5]

"cycles" of a TPU v5e (1.5 GHz) an image are those of the compiler's own schedules, by the model of benchmarks/tpu/cost.py. The
training step is ViT-S/16's, 224 pixels, bfloat16, one chip, extrapolated from those of one and two blocks to twelve. An image
pays only for the operation of RandAugment that it draws: a layer is the mean over the 16 operations, each compiled alone for 16
images with one sign of its amount and with the other. In their loops cycles alone count, without the traffic of HBM, because
that model takes an image cut out of the batch for all of it; instead one reading and one writing of its bytes are added.
In none of it are the start of each operation and of each branch. "random" is the drawing of all numbers.

The table of CPU has milliseconds an image, the median over rounds in which all take their turn. libtpu (`make tpu-compiler`) is
needed for the others. Compiling the step takes minutes; --impl dense is faster to compile, and slower.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.tpu.chip import V5E
from benchmarks.tpu.compiler import NoCompiler, compiled, library, replicated
from vit_attn.ops.augment.each import each
from vit_attn.ops.augment.keys import example_keys
from vit_attn.ops.augment.mix import mix
from vit_attn.ops.augment.pixels import normalize
from vit_attn.ops.augment.randaugment import OPS, Drawn, draw, randaugment
from vit_attn.ops.augment.window import random_flip
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec, knobs_of
from vit_attn.train.state import init_state
from vit_attn.train.step import Examples, update

SIDE = 224
MIXUP = 0.2
Shape = jax.ShapeDtypeStruct


def image_keys(index: jax.Array) -> jax.Array:
    return example_keys(0, jnp.zeros_like(index), index)


def flip(index: jax.Array, images: jax.Array) -> jax.Array:
    return random_flip(image_keys(index), images)


def augment(layers: int, magnitude: float, index: jax.Array, images: jax.Array) -> jax.Array:
    return randaugment(image_keys(index), images, layers, magnitude)


def mixup(index: jax.Array, images: jax.Array) -> jax.Array:
    return mix(jax.random.key(index[0]), images, MIXUP, 0.0)[0]


def everything(layers: int, magnitude: float, index: jax.Array, images: jax.Array) -> jax.Array:
    return mixup(index, normalize(augment(layers, magnitude, index, flip(index, images))))


def draws(layers: int, index: jax.Array) -> Drawn:
    one = partial(draw, shape=(SIDE, SIDE))
    return jax.vmap(lambda key: jax.vmap(one)(jax.random.split(key, layers)))(image_keys(index))


def spec_of(batch: int, depth: int, impl: str) -> RunSpec:
    model = {"variant": "S/16", "depth": depth, "dtype": "bfloat16", "attention": {"impl": impl}}
    return resolve({"model": model, "train": {"batch_images": batch, "steps": 100}})


def step_cycles(batch: int, impl: str) -> float:
    """Of ViT-S/16's training step, an image: that of one block, and eleven times what a second block adds."""
    one, two = (cycles_at_depth(batch, depth, impl) for depth in (1, 2))
    return one + 11 * (two - one)


def cycles_at_depth(batch: int, depth: int, impl: str) -> float:
    spec = spec_of(batch, depth, impl)
    knobs = jax.tree.map(jnp.asarray, knobs_of(spec))
    state = jax.eval_shape(partial(init_state, spec), knobs)
    shapes: Any = (Shape((batch, SIDE, SIDE, 3), jnp.float32), Shape((batch, 1), jnp.int32), Shape((), jnp.float32))
    examples = Examples(*shapes)
    knobs = jax.eval_shape(lambda x: x, knobs)
    return cycles(partial(update, spec), batch, state, knobs, examples)


def cycles(function: Callable[..., Any], batch: int, *arguments: Any) -> float:
    """An image, of a whole program."""
    return compiled(function, *replicated(arguments)).cost().seconds * V5E.clock / batch


def op_cycles(name: str, magnitude: float, negative: bool, batch: int = 16) -> float:
    """An image, of one operation in the loop over images, without HBM: bundles or what the matrix units need."""

    def one(image: jax.Array, centre: jax.Array) -> jax.Array:
        return OPS[name](image, magnitude / 10, Drawn(jnp.int32(0), jnp.asarray(negative), centre))

    arguments = (Shape((batch, SIDE, SIDE, 3), jnp.uint8), Shape((batch, 2), jnp.int32))
    ops = compiled(partial(each, one), *replicated(arguments)).cost().ops
    return sum(max(op.cycles, op.matrix_cycles) for op in ops if not op.asynchronous) / batch


def by_op(magnitude: float) -> dict[str, float]:
    return {name: statistics.mean(op_cycles(name, magnitude, negative) for negative in (False, True)) for name in OPS}


def parts(batch: int, layers: int, ops: dict[str, float]) -> dict[str, float]:
    """Cycles an image of what prepares a batch."""
    index, images = Shape((batch,), jnp.int32), Shape((batch, SIDE, SIDE, 3), jnp.uint8)
    rows = {
        "flip": cycles(flip, batch, index, images),
        "randaugment: random": cycles(partial(draws, layers), batch, index),
        "randaugment: reading and writing": 2 * SIDE * SIDE * 3 / V5E.bandwidth * V5E.clock,
        **{f"randaugment: layer {number + 1}": statistics.mean(ops.values()) for number in range(layers)},
        "normalize, mixup": cycles(lambda index, x: mixup(index, normalize(x)), batch, index, images),
    }
    return {**rows, "all": sum(rows.values())}


def table_of(title: str, rows: dict[str, float], step: float | None = None) -> Table:
    table = Table("part", title=title, title_justify="left")
    for head in ("cycles / image", "us / image", *(["% of the step"] if step else [])):
        table.add_column(head, justify="right")
    for name, count in rows.items():
        share = [f"{100 * count / step:.2f}"] if step else []
        table.add_row(name, f"{count:.0f}", f"{V5E.seconds_of_cycles(count) * 1e6:.2f}", *share)
    return table


def cpu(images: int, layers: int, magnitude: float, pairs: int) -> Table:
    """Milliseconds an image, measured."""
    index = jnp.arange(images)
    batch = jnp.asarray(photographs(images))
    functions: dict[str, Callable[..., Any]] = {
        "flip": flip,
        **{f"randaugment, {n} layer{'s' * (n > 1)}": partial(augment, n, magnitude) for n in range(1, layers + 1)},
        "normalize": lambda index, x: normalize(x),
        "normalize, mixup": lambda index, x: mixup(index, normalize(x)),
        "all": partial(everything, layers, magnitude),
    }
    programs = {name: jax.jit(function).lower(index, batch).compile() for name, function in functions.items()}
    rounds = [{name: seconds(program, index, batch) for name, program in programs.items()} for _ in range(pairs + 1)][1:]
    table = Table("part", title=f"CPU, {images} images, magnitude {magnitude:g}", title_justify="left")
    table.add_column("ms / image", justify="right")
    for name in programs:
        table.add_row(name, f"{1e3 * statistics.median(one[name] for one in rounds) / images:.3f}")
    return table


def photographs(count: int) -> np.ndarray:
    """Windows of a photograph."""
    from sklearn.datasets import load_sample_image

    whole, random = load_sample_image("china.jpg"), np.random.default_rng(0)
    corners = random.integers(0, np.array(whole.shape[:2]) - SIDE, (count, 2))
    return np.stack([whole[y : y + SIDE, x : x + SIDE] for y, x in corners])


def seconds(program: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="images on a chip")
    parser.add_argument("--images", type=int, default=32, help="images of a call on CPU")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--magnitude", type=float, default=15.0)
    parser.add_argument("--impl", default="pallas", help="of the step's attention")
    parser.add_argument("--pairs", type=int, default=5, help="rounds on CPU")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache has no schedules
    console = Console(width=110)
    console.print(cpu(flags.images, flags.layers, flags.magnitude, flags.pairs))
    try:
        library()
    except NoCompiler as error:
        parser.exit(2, f"error: {error}\n")
    ops = by_op(flags.magnitude)
    console.print(table_of(f"RandAugment's operations at magnitude {flags.magnitude:g}, v5e", ops))
    rows = parts(flags.batch, flags.layers, ops)
    console.print(table_of(f"v5e, batch {flags.batch}", rows))
    step = step_cycles(flags.batch, flags.impl)
    rows["training step, ViT-S/16"] = step
    console.print(table_of(f"v5e, batch {flags.batch}, beside the step with {flags.impl} attention", rows, step))


if __name__ == "__main__":
    main()
