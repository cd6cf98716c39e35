"""The matrix products of a training step alone: XLA's on this CPU, and PyTorch's where torch is at hand; in turn, one by one.

    python -m benchmarks.products [--shapes S/32:64,S/16:16,S/8:4] [--rounds 5] [--torch-python PATH]

Each block of a ViT multiplies its tokens, [B * L, D], by the matrices of query, key, value and output (D x D; PyTorch takes the
first three as one) and of the MLP (D x 4 D, 4 D x D). forward is x w, dx is dy w^T, dw is x^T dy; float32. GF/s: 10^9 sums and
multiplications a second; all times are medians over the rounds. The last row is what all products of a step's blocks take.
--torch-python: see benchmarks/step.py.
"""

import argparse
import json
import math
import statistics
import sys
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks.product import REPEATS, arrays, seconds_of
from benchmarks.torch_peer import TorchProcess
from vit_attn.parallel.host_memory import keep_freed_memory
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.resolve import resolve

AXES = {"forward": ((1,), (0,)), "dx": ((1,), (1,)), "dw": ((0,), (0,))}  # that are summed over
PICKED = {"forward": (0, 1), "dx": (2, 1), "dw": (0, 2)}  # of x, w, dy
Sizes = tuple[int, int, int]  # rows of x, columns of x, columns of w


def products_of(model: ModelSpec, batch: int, joined: bool) -> dict[str, tuple[int, Sizes]]:
    """By name: how often in a block, and the sizes. joined: query, key and value in one."""
    rows, width, hidden = batch * model.length, model.width, model.mlp_dim
    flat = {"query, key, value": (1, (rows, width, 3 * width)), "output": (1, (rows, width, width))}
    first = flat if joined else {"query, key, value, output": (4, (rows, width, width))}
    return first | {"MLP, first": (1, (rows, width, hidden)), "MLP, second": (1, (rows, hidden, width))}


class XlaProducts:
    """Each shape is compiled when it is first asked for."""

    def __init__(self) -> None:
        self._functions = {
            kind: jax.jit(partial(jax.lax.dot_general, dimension_numbers=(AXES[kind], ((), ())))) for kind in AXES
        }

    def seconds(self, kind: str, sizes: Sizes) -> float:
        given, function = arrays(*sizes), self._functions[kind]
        a, b = (jnp.asarray(given[index]) for index in PICKED[kind])
        return seconds_of(lambda: jax.block_until_ready([function(a, b) for _ in range(REPEATS)]))


class TorchProducts:
    def __init__(self, process: TorchProcess) -> None:
        self._process = process

    def seconds(self, kind: str, sizes: Sizes) -> float:
        return self._process.ask(json.dumps([kind, sizes]))["seconds"]


def table(variant: str, batch: int, peers: dict[str, Any], rounds: int) -> Table:
    model = resolve({"model": {"variant": variant}}).model
    result = Table("products", *(f"{name}: {kind}" for name in peers for kind in AXES), title=f"{variant}, batch {batch}, GF/s")
    listed = {name: products_of(model, batch, name != "XLA") for name in peers}
    asked = [(name, *one, kind) for name, all_of in listed.items() for one in all_of.items() for kind in AXES]
    found: dict[Any, list[float]] = {}
    for _ in range(rounds):
        for name, product, (_, sizes), kind in asked:
            found.setdefault((name, product, kind), []).append(peers[name].seconds(kind, sizes))
    times = {key: statistics.median(some) for key, some in found.items()}
    for product in dict.fromkeys(product for all_of in listed.values() for product in all_of):
        cells = []
        for name in peers:
            if product in listed[name]:
                operations = 2 * math.prod(listed[name][product][1])
                cells += [f"{operations / times[name, product, kind] / 1e9:.0f}" for kind in AXES]
            else:
                cells += [""] * len(AXES)
        result.add_row(product, *cells)
    result.add_section()
    sums = [
        f"{model.depth * sum(times[name, product, kind] * often for product, (often, _) in listed[name].items()):.2f} s"
        for name in peers
        for kind in AXES
    ]
    result.add_row("all of a step's blocks", *sums)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="S/32:64,S/16:16,S/8:4", help="variant:batch,...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable if find_spec("torch") else None, help="an interpreter")
    flags = parser.parse_args()
    keep_freed_memory()  # as the trainer does
    with ExitStack() as stack:
        peers: dict[str, Any] = {"XLA": XlaProducts()}
        if flags.torch_python:
            process = stack.enter_context(TorchProcess(flags.torch_python, "benchmarks.torch_products"))
            peers["PyTorch"] = TorchProducts(process)
        for shape in flags.shapes.split(","):
            variant, _, batch = shape.partition(":")
            Console(width=128).print(table(variant, int(batch), peers, flags.rounds))


if __name__ == "__main__":
    main()
