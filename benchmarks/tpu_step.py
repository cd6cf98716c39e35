"""The whole training step compiled for a TPU v5e without a TPU: forward, backward and optimizer; nothing timed.

    python -m benchmarks.tpu_step [--shapes S/16:128,S/8:32] [--rows unrolled,scan] [--only relu] [--parts]

Needs libtpu: `make tpu-compiler`. One chip, bfloat16 computation, float32 parameters, AdamW with bfloat16 first moments,
clipping, the state's memory reused. The peer is big_vision's step with dtype_mm=bfloat16 (benchmarks/flax_step.py): softmax of
flax's MultiHeadDotProductAttention, whose logits are bfloat16, or float32 as those of jax.nn.dot_product_attention. No
qk-layernorm (big_vision has none) unless --qk-norm says so, for both. On a TPU impl=auto means pallas at these sizes.

ms       the model of benchmarks/tpu/cost.py; a ? as there: more than a tenth of it is in loops that the schedule does not bound
/ flax   of the peer's with float32 logits
Mcycles  that are scheduled; mxu ms: what the matrix units need at least
HBM GB   traffic a step; peak GB: memory at most, the program itself left out (a v5e has 16 GB)

scan: one block compiled, in a loop over the layers. The name behind it is the remat policy: what the backward keeps.
"""

import argparse
import re
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks.tpu import steps
from benchmarks.tpu.compiler import NoCompiler, compiled, library, replicated
from benchmarks.tpu.cost import Cost
from benchmarks.tpu.rows import Rows
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import REMAT

PEER = "flax softmax, float32 logits"
FORMS, IMPLS = ("softmax", "relu"), ("dense", "pallas")
POLICIES = ("auto", "none", *REMAT)
COLUMNS = {"": 40, "ms": 8, "/ flax": 6, "Mcycles": 8, "mxu ms": 7, "HBM GB": 7, "peak GB": 7}
DOUBTFUL = 0.1  # share of a time in operations that the model knows badly, from which on it is marked
PARTS = {  # of the step, by what jax calls an operation; the first that is found. Fusions go by what they are named after
    "unnamed": r"^[a-z-]+$",  # that the compiler made up: no name but the opcode
    "attention": r"MultiHeadDotProductAttention_0/(?!(?:query|key|value|out)/)",
    "projections": r"MultiHeadDotProductAttention_0/",
    "MLP": r"MlpBlock_0",
    "LayerNorm": r"LayerNorm|encoder_norm",
    "patches, head, loss": r"jvp",
    "optimizer, norms": r"",
}


def rows_of(variant: str, batch: int, kinds: list[str], qk_norm: str) -> Iterator[tuple[str, steps.Step]]:
    """(name, step), the peers first."""
    norm: dict[str, Any] = {"qk_norm": qk_norm}
    yield PEER, steps.flax(variant, batch, float32_logits=True, **norm)
    yield "flax softmax, bfloat16 logits", steps.flax(variant, batch, float32_logits=False, **norm)
    if "unrolled" in kinds:
        yield from ((f"{h}, {impl}", steps.ours(variant, batch, h=h, impl=impl, **norm)) for impl in IMPLS for h in FORMS)
    if "scan" in kinds:
        for policy in POLICIES:
            model = {"scan_layers": True, "remat": policy}
            name = "scan" if policy == "auto" else f"scan, {policy}"
            yield from ((f"{h}, {name}", steps.ours(variant, batch, model, h=h, impl="pallas", **norm)) for h in FORMS)


def parts_of(cost: Cost) -> dict[str, float]:
    """Milliseconds by the parts of the step."""
    found = dict.fromkeys(PARTS, 0.0)
    for op in cost.ops:
        part = next(name for name, pattern in PARTS.items() if re.search(pattern, op.instruction.origin))
        found[part] += 1e3 * op.seconds(cost.chip)
    return found


def table(variant: str, batch: int, kinds: list[str], only: str, qk_norm: str, with_parts: bool) -> None:
    """Compiles and prints."""
    rows = Rows(f"ViT-{variant}, batch {batch} on one v5e, bfloat16, qk-layernorm: {qk_norm}", COLUMNS)
    parts, peer = {}, 0.0
    for name, step in rows_of(variant, batch, kinds, qk_norm):
        if not re.search(only, name):
            continue
        try:
            program = compiled(step.function, *replicated(step.arguments), donate=(0,))
        except Exception as error:
            rows.say(name, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            continue
        cost = program.cost()
        peer = cost.milliseconds if name == PEER else peer
        ratio = f"{cost.milliseconds / peer:.2f}" if peer else ""
        mark = "?" if cost.doubtful_share() > DOUBTFUL else " "
        sizes = (f"{1e3 * cost.matrix_seconds:.1f}", f"{cost.hbm_bytes / 1e9:.1f}", f"{program.peak_bytes / 1e9:.2f}")
        rows.add(name, f"{cost.milliseconds:.1f}{mark}", ratio, f"{cost.cycles / 1e6:.1f}", *sizes)
        parts[name] = parts_of(cost)
    if with_parts:
        columns = Rows(
            "ms by part; a fusion goes by the operation that it is named after", {"": COLUMNS[""]} | dict.fromkeys(PARTS, 8)
        )
        for name, found in parts.items():
            columns.add(name, *(f"{found[part]:.1f}" for part in PARTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="S/16:128,S/8:32", help="variant:batch,...")
    parser.add_argument("--rows", default="unrolled,scan", help="which, beside the peers")
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--qk-norm", default="none", choices=("none", "head"))
    parser.add_argument("--parts", action="store_true", help="also where the time goes")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache has no schedules
    try:
        library()
    except NoCompiler as error:
        parser.exit(2, f"error: {error}\n")
    for shape in flags.shapes.split(","):
        variant, _, batch = shape.partition(":")
        try:
            table(variant, int(batch), flags.rows.split(","), flags.only, flags.qk_norm, flags.parts)
        except UserError as error:
            parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
