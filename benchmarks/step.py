"""Training step: ours, a ViT of flax's own parts as big_vision's, and PyTorch eager where torch is at hand; in turn.

    python -m benchmarks.step [--pairs 5] [--shapes S/32:64,S/16:16,S/8:4] [--torch-python PATH] [--check]

All run the same optimizer, clipping included, on the same float32 batch at 224 pixels, from the same parameters, without
qk-layernorm (big_vision's ViT has none). PyTorch (benchmarks/torch_vit.py: scaled_dot_product_attention, fused AdamW) runs in a
process of its own, of the interpreter --torch-python, which needs torch and numpy; by default of this one if it has them. It
waits while the others run. "flax / this" is the median over the rounds, in each of which all take their turn, of the flax ViT's
time / this one's, "torch / this" the same of PyTorch's softmax: above 1, this one is faster.

--check: no times, but the losses and gradient norms of three steps: those of one form must agree within 1e-4 of their size.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.flax_step import flax_update
from benchmarks.torch_peer import TorchRunner
from vit_attn.parallel.host_memory import keep_freed_memory
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec, knobs_of
from vit_attn.train.health import healthy
from vit_attn.train.optimizer import adam
from vit_attn.train.state import State, init_state
from vit_attn.train.step import Examples, update

FORMS = ("softmax", "relu")
FLAX, TORCH = "flax ViT, softmax", "PyTorch eager, softmax"
NOISE = 0.02  # on all parameters: a head of zeros would make the first loss log(classes), whatever the network
CHECK_STEPS, CLOSE = 3, 1e-4


class Runner(Protocol):
    def step(self) -> dict[str, float]:
        """One step: seconds, loss, l2_grads."""


class JaxRunner:
    """A compiled step with its state."""

    def __init__(self, spec: RunSpec, function: Callable[..., Any], params: Any, examples: Examples) -> None:
        knobs = jax.tree.map(jnp.asarray, knobs_of(spec))
        params = jax.tree.map(jnp.array, params)  # its own: steps reuse its memory
        self._state = State(params, adam(spec.train).init(params), jnp.int32(0), jax.tree.map(jnp.array, healthy()))
        self._rest = knobs, examples
        self._step = jax.jit(partial(function, spec), donate_argnums=0).lower(self._state, *self._rest).compile()

    def step(self) -> dict[str, float]:
        start = time.perf_counter()
        self._state, metrics = self._step(self._state, *self._rest)
        jax.block_until_ready((self._state, metrics))
        seconds = time.perf_counter() - start
        return {"seconds": seconds} | {name: float(metrics[f"train/{name}"]) for name in ("loss", "l2_grads")}


def spec_of(variant: str, h: str, batch: int) -> RunSpec:
    """adam_mu_dtype: PyTorch keeps its moments in float32."""
    model = {"variant": variant, "attention": {"h": h, "qk_norm": "none"}}
    return resolve({"model": model, "train": {"batch_images": batch, "steps": 100, "adam_mu_dtype": "float32"}})


def start(spec: RunSpec) -> tuple[Any, Examples]:
    """Parameters with noise on all of them, and a batch."""
    rng, batch, side = np.random.default_rng(0), spec.train.batch_images, spec.model.image_size
    fresh: State = jax.jit(partial(init_state, spec))(knobs_of(spec))
    params = jax.tree.map(lambda x: np.asarray(x) + NOISE * rng.standard_normal(x.shape, np.float32), fresh.params)
    images = rng.uniform(-1.0, 1.0, (batch, side, side, 3)).astype(np.float32)
    labels = rng.integers(0, spec.model.num_classes, (batch, 1), np.int32)
    return params, Examples(jnp.asarray(images), jnp.asarray(labels), jnp.float32(1))


def runners_of(variant: str, batch: int, torch_python: str | None, stack: ExitStack) -> dict[str, Runner]:
    """By name; torch's processes end with `stack`."""
    specs = {h: spec_of(variant, h, batch) for h in FORMS}
    params, examples = start(specs["softmax"])
    runners: dict[str, Runner] = {FLAX: JaxRunner(specs["softmax"], flax_update, params, examples)}
    runners |= {f"ours, {h}": JaxRunner(spec, update, params, examples) for h, spec in specs.items()}
    if torch_python:
        for h, spec in specs.items():
            runners[f"PyTorch eager, {h}"] = stack.enter_context(TorchRunner(torch_python, spec, params, examples))
    return runners


def timed(runners: Mapping[str, Runner], pairs: int, title: str, batch: int) -> Table:
    """The rounds, and a line for each runner."""
    for runner in runners.values():
        runner.step()  # does not count: caches and pages are cold
    rounds = [{name: runner.step()["seconds"] for name, runner in runners.items()} for _ in range(pairs)]
    table = Table("network", "step, s", "images/s", "flax / this", "torch / this", title=title)
    for name in runners:
        seconds = statistics.median(one[name] for one in rounds)
        ratios = [
            f"{statistics.median(one[peer] / one[name] for one in rounds):.2f}" if peer in runners else ""
            for peer in (FLAX, TORCH)
        ]
        table.add_row(name, f"{seconds:.2f}", f"{batch / seconds:.2f}", *ratios)
    return table


def checked(runners: Mapping[str, Runner], title: str) -> tuple[Table, bool]:
    """The numbers of a few steps, and whether those of each form agree."""
    found = {name: [runner.step() for _ in range(CHECK_STEPS)] for name, runner in runners.items()}
    table = Table("network", "losses", "gradient norms", "difference", title=title)
    agree = True
    for name, steps in found.items():
        first = next(other for other in found if other.rpartition(" ")[2] == name.rpartition(" ")[2])
        numbers, peers = ([[one[key] for one in rows] for key in ("loss", "l2_grads")] for rows in (steps, found[first]))
        difference = float(np.max(np.abs(np.divide(numbers, peers) - 1)))
        agree &= difference <= CLOSE
        losses, norms = (", ".join(f"{x:.6g}" for x in row) for row in numbers)
        table.add_row(name, losses, norms, f"{difference:.1e}" if name != first else "")
    return table, agree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--shapes", default="S/32:64,S/16:16,S/8:4", help="variant:batch,...")
    parser.add_argument("--torch-python", default=sys.executable if find_spec("torch") else None, help="an interpreter")
    parser.add_argument("--check", action="store_true", help="compare losses instead of times")
    flags = parser.parse_args()
    keep_freed_memory()  # as the trainer does; the peers get the same
    console, agree = Console(width=120), True
    if not flags.torch_python:
        console.print("PyTorch: skipped, not installed here; --torch-python PATH takes another interpreter")
    for shape in flags.shapes.split(","):
        variant, batch = shape.partition(":")[::2]
        title = f"{variant}, batch {batch}, float32, 224 px"
        with ExitStack() as stack:
            runners = runners_of(variant, int(batch), flags.torch_python, stack)
            if flags.check:
                table, same = checked(runners, title)
                agree &= same
            else:
                table = timed(runners, flags.pairs, title, int(batch))
        console.print(table)
    if not flags.check:
        console.print(f"load average of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    sys.exit(not agree)


if __name__ == "__main__":
    main()
