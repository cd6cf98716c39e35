"""Sequence-parallel attention compiled for 16 TPU v5e without a TPU: does a pointwise h need "fewer gather operations"?

    python -m benchmarks.seq_parallel [--batch 64] [--length 784]

arXiv:2309.08586 says so of a sequence split over devices (section 1). Needs libtpu: `make tpu-compiler`. One attention layer of
ViT-S/8 (6 heads of width 64, bfloat16, no qk-norm) on a mesh of data 4 x seq 4, images and tokens split. The layouts are those
of vit_attn.parallel.sequence; "compiler" is the plain einsum, with nothing but the shardings of its arguments and results
given. Blockwise takes all keys of a call as one block, with the backward written by hand; the queries and ring layouts of a
softmax are made of it.

"sent MB" is what a device sends in a pass, its own part of an all-gather not counted and an all-reduce counted as a
reduce-scatter and an all-gather. "ms" is the model of benchmarks/tpu/cost.py for all but the collectives, whose time is not in
it; nothing was timed. A collective that proceeds beside the computation counts once. The backward is what the program of both
passes has more than that of the forward.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from benchmarks.tpu.chip import V5E
from benchmarks.tpu.collectives import Collective
from benchmarks.tpu.compiler import NoCompiler, compiled, mesh
from benchmarks.tpu.cost import Cost
from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.ops.norm import QKNorm
from vit_attn.ops.tile import product
from vit_attn.parallel.sequence import axis
from vit_attn.parallel.sequence.attention import LAYOUTS, choose_layout, sharded_attend

SLICE = replace(V5E, topology="v5e:4x4")
DATA, SEQ = 4, 4
HEADS, WIDTH = 6, 64
POINTWISE, SOFTMAX = "relu", "softmax"
COMPILER = "compiler"
COLUMNS = ("", "forward: collectives", "sent MB", "ms", "backward: collectives", "sent MB", "ms", "temporary MB")
SHARE = {  # what a device sends, by the bytes of the result that it holds afterwards
    "all-gather": (SEQ - 1) / SEQ,
    "all-to-all": (SEQ - 1) / SEQ,
    "reduce-scatter": SEQ - 1.0,
    "all-reduce": 2 * (SEQ - 1) / SEQ,
    "collective-permute": 1.0,
}
SHORT = {"all-gather": "AG", "all-to-all": "A2A", "reduce-scatter": "RS", "all-reduce": "AR", "collective-permute": "permute"}


@dataclass(frozen=True)
class Pass:
    """A forward or a backward."""

    collectives: dict[str, Collective]
    milliseconds: float
    temp_bytes: int

    @property
    def count(self) -> int:
        return sum(one.count for one in self.collectives.values())

    @property
    def sent(self) -> float:
        """Bytes out of a device."""
        return sum(SHARE[kind] * one.bytes for kind, one in self.collectives.items())

    def in_words(self) -> str:
        return " + ".join(f"{one.count} {SHORT[kind]}" for kind, one in sorted(self.collectives.items())) or "none"


@dataclass(frozen=True)
class Layer:
    """A layer in one layout."""

    forward: Pass
    backward: Pass

    @property
    def count(self) -> int:
        return self.forward.count + self.backward.count

    @property
    def sent(self) -> float:
        return self.forward.sent + self.backward.sent

    @property
    def milliseconds(self) -> float:
        return self.forward.milliseconds + self.backward.milliseconds


def attention(h: str, layout: str, impl: str) -> Callable[..., jax.Array]:
    """Of global q, k and v."""
    form = Form(h=h, block=2**31)
    if layout == COMPILER:
        return lambda q, k, v: attend(q, k, v, form, Numbers(1.0), impl=impl)
    return lambda q, k, v: sharded_attend(q, k, v, form, Numbers(1.0), impl=impl, norm=QKNorm(), seq_layout=layout)


def textbook(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Softmax with gathered queries as it is usually written: collectives of their own for the rows' maxima and totals."""

    def local(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        logits = product("bqhd,bkhd->bhqk", axis.gathered(q * jnp.asarray(WIDTH**-0.5, q.dtype)), k)
        e = jnp.exp(logits - jax.lax.pmax(logits.max(-1, keepdims=True), axis.SEQ))
        p = e / jax.lax.psum(e.sum(-1, keepdims=True), axis.SEQ)
        return axis.scattered_sum(product("bhqk,bkhd->bqhd", p, v).astype(v.dtype))

    tokens = PartitionSpec("data", "seq")
    return jax.shard_map(local, in_specs=(tokens, tokens, tokens), out_specs=tokens, check_vma=False)(q, k, v)


def argument(batch: int, length: int) -> jax.ShapeDtypeStruct:
    """q, k, v or a cotangent, split over the devices."""
    sharding = NamedSharding(mesh(SLICE, (DATA, SEQ), ("data", "seq")), PartitionSpec("data", "seq"))
    return jax.ShapeDtypeStruct((batch, length, HEADS, WIDTH), jnp.bfloat16, sharding=sharding)


def forward_of(function: Callable[..., jax.Array], x: jax.ShapeDtypeStruct) -> Pass:
    """Compiled."""
    with jax.set_mesh(mesh(SLICE, (DATA, SEQ), ("data", "seq"))):
        cost = compiled(function, x, x, x, results=x, chip=SLICE).cost()
    return Pass(cost.collectives, cost.milliseconds, cost.temp_bytes)


def layer_of(function: Callable[..., jax.Array], x: jax.ShapeDtypeStruct) -> Layer:
    """Compiled."""

    def both(q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array) -> Any:
        out, pull = jax.vjp(function, q, k, v)
        return out, pull(d_out)

    forward = forward_of(function, x)
    with jax.set_mesh(mesh(SLICE, (DATA, SEQ), ("data", "seq"))):
        together = compiled(both, x, x, x, x, results=(x, (x, x, x)), chip=SLICE).cost()
    return Layer(forward, rest(together, forward))


def rest(together: Cost, forward: Pass) -> Pass:
    """The backward, of a program of both passes."""
    more = {}
    for kind, one in together.collectives.items():
        old = forward.collectives.get(kind, Collective())
        if one != old:
            more[kind] = Collective(one.count - old.count, one.bytes - old.bytes)
    return Pass(more, together.milliseconds - forward.milliseconds, together.temp_bytes)


def cells(one: Pass) -> list[str]:
    return [one.in_words(), f"{one.sent / 1e6:.1f}", f"{one.milliseconds:.2f}"]


def verdict(layers: dict[tuple[str, str], Layer], usual: Pass) -> list[str]:
    """What the numbers say of the claim, a sentence a layout, and what `auto` takes."""
    said, fewer = [], []
    for layout in (*LAYOUTS, COMPILER):
        ours, theirs = layers[POINTWISE, layout], layers[SOFTMAX, layout]
        if ours.count < theirs.count:
            fewer.append(layout)
        said.append(
            f"{layout}: {POINTWISE} needs {_compared(ours.count, theirs.count)} collectives"
            f" ({ours.count} and {theirs.count} for both passes) and {_compared(round(ours.sent, -5), round(theirs.sent, -5))}"
            f" bytes ({ours.sent / 1e6:.1f} and {theirs.sent / 1e6:.1f} MB, {SOFTMAX} {theirs.sent / ours.sent - 1:+.1%})."
        )
    where = f"holds in: {', '.join(fewer)}, and in no other layout" if fewer else "holds in no layout"
    said.append(f'"Fewer gather operations" {where}.')
    summed, merged = layers[POINTWISE, "queries"].forward, layers[SOFTMAX, "queries"].forward
    said.append(
        f"With queries gathered, {SOFTMAX} as it is usually written needs {usual.count} collectives forward, {POINTWISE}"
        f" {summed.count}; with each row's statistics in the same collective as the outputs {SOFTMAX} needs {merged.count}."
    )
    for h in (POINTWISE, SOFTMAX):
        bytes_of, ms = ({layout: getattr(layers[h, layout], what) for layout in LAYOUTS} for what in ("sent", "milliseconds"))
        said.append(
            f"{h}: fewest bytes in {min(LAYOUTS, key=bytes_of.__getitem__)}, least computation in"
            f" {min(LAYOUTS, key=ms.__getitem__)}; auto takes {choose_layout('auto', h)}."
        )
    return said


def _compared(ours: float, theirs: float) -> str:
    return "as many" if ours == theirs else "fewer" if ours < theirs else "more"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images on all devices")
    parser.add_argument("--length", type=int, default=784, help="tokens of an image")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache has no schedules
    console, x = Console(width=150, highlight=False), None
    layers: dict[tuple[str, str], Layer] = {}
    try:
        x = argument(flags.batch, flags.length)
    except NoCompiler as error:
        parser.exit(2, f"error: {error}\n")
    table = Table(*COLUMNS, title=f"one attention layer, L = {flags.length}, batch {flags.batch}, data {DATA} x seq {SEQ}")
    for h in (POINTWISE, SOFTMAX):
        for layout, impl in (*((layout, "dense") for layout in (*LAYOUTS, COMPILER)), ("gather", "blockwise")):
            name = f"{h}, {layout}" + (f", {impl}" if impl != "dense" else "")
            console.print(f"compiling: {name}", style="dim")
            one = layer_of(attention(h, layout, impl), x)
            layers.setdefault((h, layout), one)
            table.add_row(name, *cells(one.forward), *cells(one.backward), f"{one.backward.temp_bytes / 1e6:.0f}")
    usual = forward_of(textbook, x)
    table.add_row(f"{SOFTMAX}, queries, as usually written", *cells(usual))
    console.print(table)
    for sentence in verdict(layers, usual):
        console.print(sentence, soft_wrap=True)


if __name__ == "__main__":
    main()
