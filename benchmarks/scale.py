"""Scale on paper: the training step compiled for slices of 4 to 256 TPU v5e without a TPU; nothing timed.

    python -m benchmarks.scale [--shapes S/16:128,B/16:64] [--chips 4,16,64,256] [--layouts data,fsdp] [--scan]

Needs libtpu: `make tpu-compiler`. A shape is a variant and the images of one chip, the same on every slice. data: every chip
has all parameters. fsdp: groups of 4 chips share them; the images are split over all chips all the same. impl=pallas, bfloat16
computation, float32 parameters, no qk-layernorm, the state's memory reused.

ms        of one chip's computation: the model of benchmarks/tpu/cost.py. Collectives are not in it, nor is waiting for them
growth    of ms, from the smallest slice on
collectives   a step, on one chip: AR all-reduce, AG all-gather, RS reduce-scatter, A2A all-to-all, CP permute
MB sent   out of one chip a step, at least
ms links  MB sent at the 200 GB/s of all its links together. A bound: no route takes all links at once, and the compiler hides a
          part of it behind computation; how much is not modelled
GB        memory on one chip: state, batch and temporary arrays (a v5e has 16)
"""

import argparse
from dataclasses import replace
from typing import Any

import jax

from benchmarks.tpu import steps
from benchmarks.tpu.chip import V5E
from benchmarks.tpu.collectives import Collective
from benchmarks.tpu.compiler import NoCompiler, Program, compiled, devices, library
from benchmarks.tpu.rows import Rows
from vit_attn.parallel.mesh import make_mesh, replicated
from vit_attn.parallel.rules import ambient, batched
from vit_attn.spec.errors import UserError
from vit_attn.spec.mesh import MeshSpec
from vit_attn.train.placement import placed

TOPOLOGIES = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}
LAYOUTS: dict[str, dict[str, int]] = {"data": {"data": -1}, "fsdp": {"data": -1, "fsdp": 4}}
SHORT = {"all-reduce": "AR", "all-gather": "AG", "reduce-scatter": "RS", "all-to-all": "A2A", "collective-permute": "CP"}
COLUMNS = {"": 12, "ms": 8, "growth": 7, "Mcycles": 8, "collectives": 26, "MB sent": 8, "ms links": 8, "GB": 6}


def program_of(step: steps.Step, chips: int, layout: str) -> Program:
    """One chip's program of a slice, with arrays where the trainer has them."""
    chip, rules = replace(V5E, topology=TOPOLOGIES[chips]), step.spec.rules
    mesh = make_mesh(MeshSpec(**LAYOUTS[layout]), devices(chip.topology))
    whole, split = replicated(mesh), batched(mesh, rules)
    state, knobs, examples = step.arguments
    state, knobs = placed(step.spec, state, mesh), jax.tree.map(lambda x: at(whole, x), knobs)
    examples = jax.tree.map(lambda x: at(split if x.ndim else whole, x), examples)
    metrics = at(whole, jax.ShapeDtypeStruct((), "float32"))  # all of them
    with ambient(mesh, rules):
        return compiled(step.function, state, knobs, examples, results=(state, metrics), donate=(0,), chip=chip)


def at(sharding: Any, x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def in_words(found: dict[str, Collective]) -> str:
    return " + ".join(f"{one.count} {SHORT[kind]}" for kind, one in sorted(found.items())) or "none"


def table(variant: str, images: int, chips: list[int], layout: str, h: str, scan: bool) -> None:
    """Compiles and prints."""
    title = f"ViT-{variant}, {h}, {images} images a chip, {layout}, layers {'scanned' if scan else 'unrolled'}"
    rows, first = Rows(title, COLUMNS), 0.0
    for count in chips:
        try:
            step = steps.ours(variant, images * count, {"scan_layers": scan}, h=h, impl="pallas")
            program = program_of(step, count, layout)
        except UserError:
            raise
        except Exception as error:
            rows.say(f"{count} chips", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            continue
        cost = program.cost()
        first = first or cost.milliseconds
        sent = sum(one.sent for one in cost.collectives.values())
        rows.add(
            f"{count} chips",
            f"{cost.milliseconds:.2f}{'?' if cost.doubtful_share() > 0.1 else ' '}",
            f"{cost.milliseconds / first - 1:+.1%}",
            f"{cost.cycles / 1e6:.2f}",
            in_words(cost.collectives),
            f"{sent / 1e6:.1f}",
            f"{1e3 * sent / V5E.links:.2f}",
            f"{program.peak_bytes / 1e9:.2f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="S/16:128,B/16:64", help="variant:images of a chip,...")
    parser.add_argument("--chips", default="4,16,64,256", help=f"of {', '.join(map(str, TOPOLOGIES))}")
    parser.add_argument("--layouts", default="data,fsdp", help="which")
    parser.add_argument("--h", default="relu")
    parser.add_argument("--scan", action="store_true", help="model.scan_layers: minutes less to compile")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache has no schedules
    chips = [int(count) for count in flags.chips.split(",")]
    if unknown := [str(count) for count in chips if count not in TOPOLOGIES]:
        parser.exit(2, f"error: --chips={','.join(unknown)}: take them from {', '.join(map(str, TOPOLOGIES))}\n")
    try:
        library()
        for shape in flags.shapes.split(","):
            variant, _, images = shape.partition(":")
            for layout in flags.layouts.split(","):
                table(variant, int(images), chips, layout, flags.h, flags.scan)
    except (NoCompiler, UserError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
