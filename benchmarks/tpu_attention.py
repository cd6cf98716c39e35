"""Attention compiled for a TPU v5e without a TPU: what the compiler's own schedules and memory plans say, nothing timed.

    python -m benchmarks.tpu_attention [--shapes 196:256,784:32] [--forms relu,softmax] [--only pallas]

Needs libtpu: `make tpu-compiler`. One layer, 6 heads of width 64, bfloat16. The first tables start from flat projections
[B, L, 384] and end with a flat result; gradients are those of q, k and v for a given cotangent. The second tables are the
model's own block: LayerNorm, projections, qk-layernorm, attention, gate, output projection, MLP. "ms" is the model of
benchmarks/tpu/cost.py, "mxu" what the matrix units need at least. GB of HBM are traffic, temporary GB are memory. A ? marks
times of which more than a tenth is in operations with loops whose length the schedule does not say: these count once.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks.tpu import peers
from benchmarks.tpu.compiler import NoCompiler, Program, compiled, library, replicated
from benchmarks.tpu.cost import Cost
from benchmarks.tpu.residents import in_words
from vit_attn.models.transformer import Block
from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.model import AttentionSpec, ModelSpec

HEADS, WIDTH = 6, 384
SHAPES = "196:256,784:32,3136:8,12544:2"  # S/16 and S/8 at 224 pixels, S/8 at 448 and 896
LONG = 1024  # from here on only implementations that keep no L x L array
FORMS = "relu,relu2,gelu,softplus,identity,relu6,sigmoid,softmax,clipped_softmax"
IMPLS = ("dense", "blockwise", "pallas")
PEERS = {
    "jax.nn, float32 logits": peers.jax_softmax,
    "flax, bfloat16 logits": peers.flax_softmax,
    "jax's splash": peers.splash,
}
BLOCK_FORMS, BLOCK_IMPLS, GATES = ("relu", "softmax"), ("dense", "pallas"), ("none", "gau")
DOUBTFUL = 0.1  # share of a time in operations that the model knows badly, from which on it is marked
COLUMNS = {"": 38, "ms forward": 10, "mxu": 6, "ms gradients": 12, "mxu ": 6, "HBM GB": 15, "temporary GB": 13}


class Rows:
    """A table that prints each row as soon as it is there."""

    def __init__(self, title: str) -> None:
        self._console = Console(width=sum(COLUMNS.values()) + 2 * len(COLUMNS), highlight=False)
        self._console.print(f"\n[bold]{title}[/bold]")
        self._print(list(COLUMNS), "bold")

    def add(self, name: str, forward: Cost, gradients: Cost) -> None:
        cells = [name]
        for cost in (forward, gradients):
            mark = "?" if cost.doubtful_share() > DOUBTFUL else " "
            cells += [f"{1e3 * cost.seconds:.2f}{mark}", f"{1e3 * cost.matrix_seconds:.2f}"]
        cells.append(f"{forward.hbm_bytes / 1e9:.2f} / {gradients.hbm_bytes / 1e9:.2f}")
        cells.append(f"{forward.temp_bytes / 1e9:.2f} / {gradients.temp_bytes / 1e9:.2f}")
        self._print(cells)

    def say(self, name: str, text: str) -> None:
        self._console.print(f" {name:{COLUMNS['']}}  {text}", markup=False, soft_wrap=True)

    def _print(self, cells: list[str], style: str = "") -> None:
        table = Table(show_header=False, box=None, padding=(0, 1))
        for number, width in enumerate(COLUMNS.values()):
            table.add_column(justify="right" if number else "left", width=width)
        table.add_row(*cells, style=style)
        self._console.print(table)


def implementations(length: int, forms: list[str], only: list[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(name, function of flat q, k, v and numbers)."""
    for impl in IMPLS:
        if impl in only and (impl != "dense" or length < LONG):
            yield from ((f"{h}, {impl}", ours(h, impl)) for h in forms)
    for name, peer in PEERS.items():
        if "peers" in only and (length < LONG or peer is peers.splash):
            yield f"softmax, {name}", lambda q, k, v, numbers, peer=peer: peer(HEADS)(q, k, v)


def ours(h: str, impl: str) -> Callable[..., Any]:
    def attention(q: jax.Array, k: jax.Array, v: jax.Array, numbers: Numbers) -> jax.Array:
        q, k, v = (peers.split(x, HEADS) for x in (q, k, v))
        return peers.merged(attend(q, k, v, Form(h=h), numbers, impl=impl))

    return attention


def gradients_of(function: Callable[..., Any], inputs: int) -> Callable[..., Any]:
    """The gradients of the first `inputs` arguments, given all arguments and the cotangent of the result."""

    def gradients(*arguments: Any) -> Any:
        *given, cotangent = arguments
        return jax.vjp(lambda *first: function(*first, *given[inputs:]), *given[:inputs])[1](cotangent)

    return gradients


def both(function: Callable[..., Any], inputs: int, *arguments: Any) -> tuple[Program, Program]:
    """`function` and its gradients, compiled; a gradient lies in memory as its argument does."""
    result = replicated(jax.eval_shape(function, *arguments), rows=True)
    gradients = compiled(gradients_of(function, inputs), *arguments, result, results=arguments[:inputs])
    return compiled(function, *arguments, results=result), gradients


def numbers_of(h: str) -> Numbers:
    """Traced where the form has them, as the trainer passes them."""
    scalar = replicated(jax.ShapeDtypeStruct((), jnp.float32))
    return Numbers(alpha=scalar, gamma=scalar, zeta=scalar) if h == "clipped_softmax" else Numbers(alpha=scalar)


def bare(batch: int, length: int, forms: list[str], only: list[str]) -> None:
    """The table of attention alone."""
    rows = Rows(f"attention alone, L = {length}, batch {batch}")
    x = replicated(jax.ShapeDtypeStruct((batch, length, WIDTH), jnp.bfloat16), rows=True)
    for name, function in implementations(length, forms, only):
        try:
            forward, gradients = both(function, 3, x, x, x, numbers_of(name.partition(",")[0]))
            rows.add(name, forward.cost(), gradients.cost())
        except Exception as error:
            rows.say(name, reason(error))


def blocks(batch: int, length: int, forms: list[str], only: list[str]) -> None:
    """The table of the model's block, with a sentence about the arrays in HBM under each row."""
    rows = Rows(f"the model's block, qk-layernorm of heads, L = {length}, batch {batch}")
    x = replicated(jax.ShapeDtypeStruct((batch, length, WIDTH), jnp.bfloat16), rows=True)
    for gate, h, impl in ((gate, h, impl) for gate in GATES for h in BLOCK_FORMS for impl in BLOCK_IMPLS):
        name = f"{h}, {impl}, gate {gate}"
        if h not in forms or impl not in only or (impl == "dense" and length >= LONG):
            continue
        try:
            forward, gradients = both(*block(h, impl, gate, length, x))
            rows.add(name, forward.cost(), gradients.cost())
            for what, program in (("forward", forward), ("gradients", gradients)):
                rows.say(f"   {what}", in_words(program.module, batch, length, WIDTH))
        except Exception as error:
            rows.say(name, reason(error))


def block(h: str, impl: str, gate: str, length: int, x: Any) -> tuple[Any, ...]:
    """The block's function, of how many of its arguments it has gradients, and the arguments."""
    attention = AttentionSpec(h=h, impl=impl, qk_norm="head", gate=gate)
    module = Block(ModelSpec(attention=attention, width=WIDTH, heads=HEADS, mlp_dim=4 * WIDTH, dtype="bfloat16"))
    numbers = numbers_of(h)
    params = replicated(jax.eval_shape(lambda x, n: module.init(jax.random.key(0), x, n, length), x, numbers))
    return lambda params, x, numbers: module.apply(params, x, numbers, length), 2, params, x, numbers


def reason(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=SHAPES, help="L:batch,...")
    parser.add_argument("--forms", default=FORMS, help="h,... of ours")
    parser.add_argument("--only", default=",".join((*IMPLS, "peers")), help="implementations, ...")
    parser.add_argument("--tables", default="bare,blocks", help="which")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache has no schedules
    try:
        library()
    except NoCompiler as error:
        parser.exit(2, f"error: {error}\n")
    for name, table in (("bare", bare), ("blocks", blocks)):
        for shape in flags.shapes.split(","):
            if name in flags.tables.split(","):
                length, batch = (int(number) for number in shape.split(":"))
                table(batch, length, flags.forms.split(","), flags.only.split(","))


if __name__ == "__main__":
    main()
