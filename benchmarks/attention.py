"""One attention without its projections: ours, flax's, jax.nn's and, where torch is installed, torch's.

    python -m benchmarks.attention [--L 49,196,784,3136,12544] [--pairs 5] [--block 512] [--tile-logits 262144]

float32, H = 6 heads of d = 64, qk-layernorm off, batch = 12544 / L (at least 1): 12544 tokens a call at every L. Inputs are
[B, L, H, d] for jax, [B, H, L, d] for torch: each the layout that it computes in. "backward" is forward and backward: the
output and the gradients of q, k and v. alpha of relu is 1, gamma of clipped softmax -0.03.

us/token   median over the rounds, in each of which all take their turn, of seconds a call / tokens
flax/this  median over the rounds of flax's time / this one's in the same round: above 1, this one is faster
MiB        what a call needs besides inputs and results: the compiled program's temporary buffers, as XLA reports them. For
           torch, which has no such report: how far a process of its own rises above its resident memory before the call,
           less the results

What needs more than three quarters of the memory that is free is not run; its row says how much it needs.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from vit_attn.ops.attend import attend
from vit_attn.ops.choice import CPU_TILE_LOGITS
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.parallel.host_memory import keep_freed_memory

TOKENS, HEADS, WIDTH = 12544, 6, 64
NUMBERS = {"relu": Numbers(alpha=1.0), "softmax": Numbers(), "clipped_softmax": Numbers(gamma=-0.03)}
PEER = "flax.linen.dot_product_attention"
TORCH = "torch scaled_dot_product_attention"
SHARE_OF_FREE_MEMORY = 0.75
MIB = 2**20


class TooLargeError(Exception):
    """The bytes that a call would need."""


class JaxRunner:
    """A compiled attention with its inputs; `seconds()` times a call."""

    def __init__(self, attention: Callable[..., Any], shape: Sequence[int], backward: bool) -> None:
        def both(q: Any, k: Any, v: Any, d_out: Any) -> Any:
            out, pull = jax.vjp(attention, q, k, v)
            return out, pull(d_out)

        def only(q: Any, k: Any, v: Any, d_out: Any) -> Any:
            return attention(q, k, v)

        self._inputs = [jnp.asarray(x) for x in inputs(shape)]
        self._call = jax.jit(both if backward else only).lower(*self._inputs).compile()
        analysis = self._call.memory_analysis()
        assert analysis is not None
        self.memory = analysis.temp_size_in_bytes
        if self.memory > SHARE_OF_FREE_MEMORY * free_memory():
            raise TooLargeError(self.memory)

    def seconds(self) -> float:
        start = time.perf_counter()
        jax.block_until_ready(self._call(*self._inputs))
        return time.perf_counter() - start


class TorchRunner:
    """The same of torch."""

    def __init__(self, shape: Sequence[int], backward: bool, measure_memory: bool = True) -> None:
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(x.swapaxes(1, 2))) for x in inputs(shape)]
        self._inputs, self._d_out = [x.requires_grad_(backward) for x in tensors[:3]], tensors[3]
        self._backward, self._torch = backward, torch
        self.memory = torch_memory(shape, backward) if measure_memory else 0

    def seconds(self) -> float:
        start = time.perf_counter()
        with self._torch.set_grad_enabled(self._backward):
            out = self._torch.nn.functional.scaled_dot_product_attention(*self._inputs)
            if self._backward:
                self._torch.autograd.grad(out, self._inputs, self._d_out)
        return time.perf_counter() - start


def inputs(shape: Sequence[int]) -> list[np.ndarray]:
    """q, k, v, d_out."""
    return list(np.random.default_rng(0).standard_normal((4, *shape), np.float32))


def free_memory() -> int:
    """Bytes that a process can get without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def implementations(form: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """Name -> attention of q, k, v in jax; `form` are the sizes of blockwise."""

    def ours(h: str, impl: str) -> Callable[..., Any]:
        return lambda q, k, v: attend(q, k, v, Form(h=h, **form), NUMBERS[h], impl=impl)

    peers: dict[str, Callable[..., Any]] = {
        PEER: nn.dot_product_attention,
        "jax.nn.dot_product_attention": jax.nn.dot_product_attention,
    }
    names = [("blockwise", h) for h in NUMBERS] + [("dense", h) for h in ("relu", "softmax")]
    return peers | {f"ours, {impl}, {h}": ours(h, impl) for impl, h in names}


def runners(length: int, backward: bool, form: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """(what runs by its name, bytes that the others would need)."""
    shape = (max(1, TOKENS // length), length, HEADS, WIDTH)
    found: dict[str, Any] = {}
    too_large = {}
    for name, attention in implementations(form).items():
        try:
            found[name] = JaxRunner(attention, shape, backward)
        except TooLargeError as error:
            too_large[name] = error.args[0]
    if importlib.util.find_spec("torch"):
        found[TORCH] = TorchRunner(shape, backward)
    return found, too_large


def table(length: int, backward: bool, pairs: int, form: dict[str, Any]) -> Table:
    """The rounds of one L, and a line for each implementation."""
    found, too_large = runners(length, backward, form)
    for runner in found.values():
        runner.seconds()  # does not count: caches and pages are cold
    rounds = [{name: runner.seconds() for name, runner in found.items()} for _ in range(pairs)]
    batch = max(1, TOKENS // length)
    title = f"L = {length}, batch {batch}, {'forward and backward' if backward else 'forward'}"
    result = Table("attention", title=title, title_justify="left")
    for head in ("us/token", "flax/this", "MiB"):
        result.add_column(head, justify="right")
    for name, runner in found.items():
        us = statistics.median(one[name] for one in rounds) / (batch * length) * 1e6
        ratio = f"{statistics.median(one[PEER] / one[name] for one in rounds):.2f}" if PEER in found else ""
        result.add_row(name, f"{us:.2f}", ratio, f"{runner.memory / MIB:.0f}")
    for name, memory in too_large.items():
        result.add_row(name, f"not run: needs {memory / 2**30:.1f} GiB", "", f"{memory / MIB:.0f}")
    return result


def torch_memory(shape: Sequence[int], backward: bool) -> int:
    """Measured in a process of its own."""
    numbers = ",".join(map(str, (*shape, int(backward))))
    command = [sys.executable, "-m", "benchmarks.attention", "--torch-memory", numbers]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def rise_of_torch(shape: Sequence[int], backward: bool) -> int:
    """Bytes that this process rises above its resident memory in one call, less those of the results."""
    TorchRunner((1, 16, HEADS, WIDTH), backward, measure_memory=False).seconds()  # its libraries are in memory then
    runner = TorchRunner(shape, backward, measure_memory=False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew; ru_maxrss would keep that of the parent
    before = resident("VmRSS")
    runner.seconds()
    results = 4 if backward else 1
    return max(0, resident("VmHWM") - before - results * 4 * int(np.prod(shape)))


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--L", default="49,196,784,3136,12544", help="numbers of keys")
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--block", type=int, default=Form.block, help="keys that blockwise takes at a time")
    parser.add_argument("--tile-logits", type=int, default=CPU_TILE_LOGITS, help="logits that it has in memory at a time")
    parser.add_argument("--torch-memory", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.torch_memory:
        *shape, backward = map(int, flags.torch_memory.split(","))
        print(rise_of_torch(shape, bool(backward)))
        return
    keep_freed_memory()  # as the trainer does; the peers get the same
    console = Console()
    if not importlib.util.find_spec("torch"):
        console.print(f"{TORCH}: skipped, torch is not installed")
    form = {"block": flags.block, "tile_logits": flags.tile_logits}
    for length in map(int, flags.L.split(",")):
        for backward in (False, True):
            console.print(table(length, backward, flags.pairs, form))


if __name__ == "__main__":
    main()
