"""Training step, ours against flax's own MultiHeadDotProductAttention ViT: one process, in turn, step by step.

    python -m benchmarks.step [--pairs 5] [--shapes S/16:16,S/8:4]

Both run the same optimizer on the same float32 batch at 224 pixels, without qk-layernorm (big_vision's ViT has none). The
ratio is the median over pairs of (flax ViT with softmax) / (ours): above 1, ours is faster.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table

from benchmarks.flax_vit import FlaxViT
from vit_attn.parallel.host_memory import keep_freed_memory
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import Knobs, RunSpec, knobs_of
from vit_attn.train.losses import softmax_xent
from vit_attn.train.optimizer import adam, updates
from vit_attn.train.state import State, init_state
from vit_attn.train.step import Examples, update

FORMS = ("softmax", "relu")


def spec_of(variant: str, h: str, batch: int) -> RunSpec:
    model = {"variant": variant, "attention": {"h": h, "qk_norm": "none"}}
    return resolve({"model": model, "train": {"batch_images": batch, "steps": 100}})


def flax_update(spec: RunSpec, state: State, knobs: Knobs, examples: Examples) -> tuple[State, Any]:
    """The same step, with the peer's network."""
    m = spec.model
    model = FlaxViT(m.num_classes, m.patch, m.width, m.depth, m.heads, m.mlp_dim)
    targets = jax.nn.one_hot(examples.labels[:, 0], m.num_classes)

    def objective(params: Any) -> jax.Array:
        return softmax_xent(model.apply({"params": params}, examples.images), targets).mean()  # type: ignore[arg-type]

    loss, grads = jax.value_and_grad(objective)(state.params)
    direction, moments = adam(spec.train).update(grads, state.moments)
    params = optax.apply_updates(state.params, updates(spec.train, knobs, state.step, direction, state.params))
    return State(params, moments, state.step + 1, state.health), {"train/loss": loss}


class Runner:
    """A compiled step with its state; `seconds()` times one."""

    def __init__(self, spec: RunSpec, function: Callable[..., Any], examples: Examples) -> None:
        knobs = jax.tree.map(jnp.asarray, knobs_of(spec))
        self._state, self._rest = jax.jit(partial(init_state, spec))(knobs), (knobs, examples)
        self._step = jax.jit(partial(function, spec), donate_argnums=0).lower(self._state, *self._rest).compile()

    def seconds(self) -> float:
        start = time.perf_counter()
        self._state, metrics = self._step(self._state, *self._rest)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - start


def compare(variant: str, batch: int, pairs: int) -> list[tuple[str, float, float]]:
    """(name, median seconds, median paired ratio) of the peer and of each of our forms."""
    key = jax.random.key(0)
    images = jax.random.uniform(key, (batch, 224, 224, 3), minval=-1.0)
    examples = Examples(images, jax.random.randint(key, (batch, 1), 0, 1000), jnp.float32(1))
    runners = {"flax ViT, softmax": Runner(spec_of(variant, "softmax", batch), flax_update, examples)}
    runners |= {f"ours, {h}": Runner(spec_of(variant, h, batch), update, examples) for h in FORMS}
    for runner in runners.values():
        runner.seconds()
    rounds = [{name: runner.seconds() for name, runner in runners.items()} for _ in range(pairs)]
    peer = [one["flax ViT, softmax"] for one in rounds]
    return [
        (
            name,
            statistics.median(one[name] for one in rounds),
            statistics.median(p / one[name] for p, one in zip(peer, rounds, strict=True)),
        )
        for name in runners
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--shapes", default="S/16:16,S/8:4", help="variant:batch,...")
    flags = parser.parse_args()
    keep_freed_memory()  # as the trainer does; the peer gets the same
    for shape in flags.shapes.split(","):
        variant, batch = shape.split(":")
        table = Table("network", "step, s", "images/s", "flax / this", title=f"{variant}, batch {batch}, float32, 224 px")
        for name, seconds, ratio in compare(variant, int(batch), flags.pairs):
            table.add_row(name, f"{seconds:.2f}", f"{int(batch) / seconds:.2f}", f"{ratio:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
