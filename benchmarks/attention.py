"""One attention without its projections: ours, flax's, jax.nn's and, where torch is installed, torch's.

    python -m benchmarks.attention [--L 49,196,784,3136,12544] [--pairs 5] [--block 512] [--tile-logits 2097152]

float32, H = 6 heads of d = 64, qk-layernorm off, batch = 12544 / L (at least 1): 12544 tokens a call at every L. Inputs are
[B, L, H, d] for jax, [B, H, L, d] for torch: each the layout that it computes in. "backward" is forward and backward: the
output and the gradients of q, k and v. alpha of relu is 1, gamma of clipped softmax -0.03.

us/token   median over the rounds, in each of which all take their turn, of seconds a call / tokens
flax/this  median over the rounds of flax's time / this one's in the same round: above 1, this one is faster
MiB        what a call needs besides inputs and results: how far a process of its own rises above the resident memory that it
           has before its first call
XLA MiB    temporary buffers in the plan of the compiled program. It may be too little: what XLA's YNN fusions allocate for
           themselves, which may be all logits, is not in it

What would need more than three quarters of the free memory is not run; its row says how much: 16 times what is measured with
the same batch at L / 4.
"""

import argparse
import ctypes
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
MOST_COPIES = 8  # of the logits that any implementation has in memory
MIB = 2**20


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
        self.planned = analysis.temp_size_in_bytes

    def seconds(self) -> float:
        start = time.perf_counter()
        jax.block_until_ready(self._call(*self._inputs))
        return time.perf_counter() - start


class TorchRunner:
    """The same of torch."""

    planned = 0  # unknown, and little: it goes block by block

    def __init__(self, shape: Sequence[int], backward: bool) -> None:
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(x.swapaxes(1, 2))) for x in inputs(shape)]
        self._inputs, self._d_out = [x.requires_grad_(backward) for x in tensors[:3]], tensors[3]
        self._backward, self._torch = backward, torch

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


def make(name: str, shape: Sequence[int], backward: bool, form: dict[str, Any]) -> JaxRunner | TorchRunner:
    return TorchRunner(shape, backward) if name == TORCH else JaxRunner(implementations(form)[name], shape, backward)


def needed(name: str, shape: Sequence[int], backward: bool, form: dict[str, Any]) -> int:
    """Bytes, an estimate; 0 where they are few beyond doubt."""
    batch, length, heads, width = shape
    in_blocks = name.startswith(("ours, blockwise", "torch"))
    if in_blocks or MOST_COPIES * 4 * batch * heads * length**2 < SHARE_OF_FREE_MEMORY * free_memory():
        return 0
    return 16 * measured(name, (batch, length // 4, heads, width), backward, form)


def table(length: int, backward: bool, pairs: int, form: dict[str, Any]) -> Table:
    """The rounds of one L, and a line for each implementation."""
    shape = (max(1, TOKENS // length), length, HEADS, WIDTH)
    names = [*implementations(form), *([TORCH] if importlib.util.find_spec("torch") else [])]
    runners = {name: make(name, shape, backward, form) for name in names}
    needs = {name: needed(name, shape, backward, form) for name in names}
    run = {name: runners[name] for name in names if needs[name] <= SHARE_OF_FREE_MEMORY * free_memory()}
    peaks = {name: measured(name, shape, backward, form) for name in run}  # first: afterwards this process keeps memory
    for runner in run.values():
        runner.seconds()  # does not count: caches and pages are cold
    rounds = [{name: runner.seconds() for name, runner in run.items()} for _ in range(pairs)]
    title = f"L = {length}, batch {shape[0]}, {'forward and backward' if backward else 'forward'}"
    result = Table("attention", title=title, title_justify="left")
    for head in ("us/token", "flax/this", "MiB", "XLA MiB"):
        result.add_column(head, justify="right")
    for name, runner in runners.items():
        planned = "" if name == TORCH else f"{runner.planned / MIB:.0f}"
        if name not in run:
            result.add_row(name, f"not run: needs {needs[name] / 2**30:.1f} GiB", "", "", planned)
            continue
        us = statistics.median(one[name] for one in rounds) / (shape[0] * length) * 1e6
        ratio = f"{statistics.median(one[PEER] / one[name] for one in rounds):.2f}" if PEER in run else ""
        result.add_row(name, f"{us:.2f}", ratio, f"{peaks[name] / MIB:.0f}", planned)
    return result


def measured(name: str, shape: Sequence[int], backward: bool, form: dict[str, Any]) -> int:
    """`rise`, in a process of its own."""
    arguments = ("--rise-of", name, "--backward", str(int(backward)), "--batch", str(shape[0]), "--L", str(shape[1]))
    sizes = ("--block", str(form["block"]), "--tile-logits", str(form["tile_logits"]))
    command = [sys.executable, "-m", "benchmarks.attention", *arguments, *sizes]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def rise(name: str, shape: Sequence[int], backward: bool, form: dict[str, Any]) -> int:
    """Bytes that this process rises above its resident memory in one call, less those of the results."""
    make(name, (1, 16, HEADS, WIDTH), backward, form).seconds()  # its libraries are in memory then
    runner = make(name, shape, backward, form)
    ctypes.CDLL(None).malloc_trim(0)  # what compiling has left would be used again
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
    parser.add_argument("--block", type=int, default=2**30, help="keys that blockwise takes at a time; as on CPU: all")
    parser.add_argument("--tile-logits", type=int, default=CPU_TILE_LOGITS, help="logits that it has in memory at a time")
    parser.add_argument("--rise-of", help=argparse.SUPPRESS)
    parser.add_argument("--backward", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    form = {"block": flags.block, "tile_logits": flags.tile_logits}
    lengths = [int(length) for length in flags.L.split(",")]
    if flags.rise_of:
        print(rise(flags.rise_of, (flags.batch, lengths[0], HEADS, WIDTH), bool(flags.backward), form))
        return
    keep_freed_memory()  # as the trainer does; the peers get the same
    console = Console(width=110)
    if not importlib.util.find_spec("torch"):
        console.print(f"{TORCH}: skipped, torch is not installed")
    for length in lengths:
        for backward in (False, True):
            console.print(table(length, backward, flags.pairs, form))


if __name__ == "__main__":
    main()
