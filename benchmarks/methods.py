"""What each form of attention costs: the step time of arXiv:2306.12929's methods, and relu/L, beside softmax (its Table 11).

    python -m benchmarks.methods [--variant S/16] [--batch 8] [--pairs 5] [--dtype float32]

All take their turn in every round, on the same batch at 224 pixels, without qk-layernorm. "over softmax" is the median over
the rounds of a method's time / softmax's in the same round, less 1; in brackets the quartiles. FLOPs are those of the matrix
products of a step, from vit_attn.spec.flops: clipping, h and sigmoids cost time, but none of these.
"""

import argparse
import os
import statistics
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from benchmarks.step import JaxRunner, start
from vit_attn.parallel.host_memory import keep_freed_memory
from vit_attn.spec.flops import flops_per_image
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec
from vit_attn.train.step import update

VANILLA = "softmax"
METHODS: dict[str, dict[str, Any]] = {
    VANILLA: {"h": "softmax"},
    "clipped softmax": {"h": "clipped_softmax", "gamma": -0.003},
    "gated linear": {"h": "softmax", "gate": "linear"},
    "gated mlp, n_hid 4": {"h": "softmax", "gate": "mlp"},
    "gated all_heads": {"h": "softmax", "gate": "all_heads"},
    "gated gau": {"h": "softmax", "gate": "gau"},
    "relu/L": {"h": "relu", "alpha": 1.0},
}


def spec_of(method: str, variant: str, batch: int, dtype: str) -> RunSpec:
    model = {"variant": variant, "dtype": dtype, "attention": {**METHODS[method], "qk_norm": "none"}}
    return resolve({"model": model, "train": {"batch_images": batch, "steps": 1000}})


def timed(specs: dict[str, RunSpec], pairs: int) -> dict[str, list[float]]:
    """Seconds of each method in each round."""
    runners = {method: JaxRunner(spec, update, *start(spec)) for method, spec in specs.items()}
    for runner in runners.values():
        runner.step()  # does not count: caches and pages are cold
    rounds = [{method: runner.step()["seconds"] for method, runner in runners.items()} for _ in range(pairs)]
    return {method: [one[method] for one in rounds] for method in runners}


def report(specs: dict[str, RunSpec], seconds: dict[str, list[float]], title: str) -> Table:
    table = Table("method", "step, s", "over softmax", "FLOPs over softmax", title=title)
    flops = {method: flops_per_image(spec.model) for method, spec in specs.items()}
    for method in specs:
        more = "", ""
        if method != VANILLA:
            ratios = [100 * (one / base - 1) for one, base in zip(seconds[method], seconds[VANILLA], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
            more = f"{middle:+.1f} % ({low:+.1f} ... {high:+.1f})", f"{100 * (flops[method] / flops[VANILLA] - 1):+.2f} %"
        table.add_row(method, f"{statistics.median(seconds[method]):.3f}", *more)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="S/16")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    flags = parser.parse_args()
    keep_freed_memory()  # as the trainer does
    specs = {method: spec_of(method, flags.variant, flags.batch, flags.dtype) for method in METHODS}
    device = jax.devices()[0].device_kind
    title = f"{flags.variant}, batch {flags.batch}, {flags.dtype}, 224 px, {flags.pairs} rounds, {device}"
    console = Console(width=120)
    console.print(report(specs, timed(specs, flags.pairs), title))
    console.print(f"load average of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
