"""--dry-run: what a run would be, from its settings alone. No data is looked at, nothing is computed, nothing is created."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh
from rich import box
from rich.table import Table

from vit_attn.loop.attention import attention_line
from vit_attn.loop.memory import MIB, device_limit, memory_parts, state_bytes
from vit_attn.parallel.mesh import axis_sizes, check_batches, make_mesh
from vit_attn.report.table import wide_console
from vit_attn.spec.flops import flops_line, flops_per_image
from vit_attn.spec.mesh import MeshSpec
from vit_attn.spec.run import RunSpec
from vit_attn.store.paths import paths_of
from vit_attn.store.run_dir import write_json
from vit_attn.train.init_from import check_init_from
from vit_attn.train.placement import left_whole, placed
from vit_attn.train.saved import abstract_state
from vit_attn.train.state import State


def dry_run(specs: Sequence[RunSpec], devices: int | None, json: Path | None = None) -> int:
    """Prints the plan of a pack (of one run, as a rule) for the devices of this machine, or for so many that need not be here.

    `json`: a file for the numbers that a launcher plans with (see `numbers`). Exit code 0. Raises UserError for what cannot be
    trained, as far as that shows without data.
    """
    spec = specs[0]
    if len(specs) > 1:
        from vit_attn.loop.run import check_one_pack  # here, for it takes seconds to import

        check_one_pack(list(specs))
    mesh = make_mesh(spec.mesh) if devices is None else absent_mesh(spec.mesh, devices)
    check_batches(spec, mesh)
    for one in specs:
        if one.init_from is not None:
            check_init_from(one)
    state = placed(spec, abstract_state(spec), mesh)
    console = wide_console()
    console.print(parameter_table(state.params))
    lines = [*(f"note: {line}" for line in left_whole(spec, state.params, mesh)), *layout_lines(state, len(specs))]
    if isinstance(mesh, Mesh):
        kind = jax.devices()[0].device_kind
        lines += [f"{_where(mesh)} ({kind})", attention_line(spec, mesh)]
    else:
        kind = ""
        lines += [f"{_where(mesh)}, which need not be here"]
    for line in (*lines, *plan_lines(spec, mesh.size, kind)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if json is not None:
        write_json(json, numbers(spec, mesh, state))
    return 0


def numbers(spec: RunSpec, mesh: Mesh | AbstractMesh, state: State) -> dict[str, Any]:
    """Bytes are those of one member on one device. `memory`: of the compiled update, where the devices are here (it takes the
    time to compile it, and the run finds it in the cache)."""
    here = isinstance(mesh, Mesh)
    return {
        "devices": mesh.size,
        "platform": jax.devices()[0].platform if here else None,
        "device_kind": jax.devices()[0].device_kind if here else None,
        "device_bytes": device_limit() if here else None,
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "state_bytes": state_bytes(state),
        "memory": _compiled_memory(spec, mesh) if isinstance(mesh, Mesh) else None,
        "flops_per_image": flops_per_image(spec.model),
        "batch_images": spec.train.batch_images,
        "steps": spec.train.steps,
    }


def _compiled_memory(spec: RunSpec, mesh: Mesh) -> dict[str, int] | None:
    from vit_attn.loop.program import Program  # here, for it takes seconds to import

    program = Program(spec, mesh, [], fresh=False)
    return memory_parts(program.update_compiled, program.abstract_state)


def absent_mesh(spec: MeshSpec, devices: int) -> AbstractMesh:
    """As make_mesh, for `devices` devices that only have to be counted."""
    sizes = axis_sizes(spec, devices)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def parameter_table(params: Any) -> Table:
    """Path, shape, type, bytes and sharding of shapes that have a sharding."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for head in ("parameter", "shape", "type", "bytes", "sharding"):
        table.add_column(head, justify="right" if head == "bytes" else "left", no_wrap=True)
    for name, x in paths_of(params).items():
        axes = tuple(x.sharding.spec)
        laid = "replicated" if x.sharding.is_fully_replicated else f"({', '.join(str(axis or '-') for axis in axes)})"
        table.add_row(name, str(x.shape), x.dtype.name, f"{x.size * x.dtype.itemsize:,}", laid)
    return table


def layout_lines(state: State, members: int) -> list[str]:
    """Totals of a state whose shapes have a sharding."""
    leaves = jax.tree.leaves(state.params)
    params, moments = state_bytes(state.params) / MIB, state_bytes(state.moments) / MIB
    lines = [
        f"{sum(x.size for x in leaves):,} parameters in {len(leaves)} arrays",
        f"bytes per device: parameters {params:,.1f} MiB, moments {moments:,.1f} MiB; activations come on top",
    ]
    if members > 1:
        lines.append(f"a pack of {members} members: {members * (params + moments):,.1f} MiB per device")
    return lines


def plan_lines(spec: RunSpec, devices: int, kind: str) -> list[str]:
    """The computation, the steps, the schedule and what is measured. `kind`: of the devices; "" if it is not known."""
    train, loop = spec.train, spec.loop
    epochs = f": {train.epochs:g} epochs of {train.epoch_images:,}" if train.epochs is not None else ""
    rate = f"a cosine from {train.peak_lr:g} to {train.floor * train.peak_lr:g}"
    rate += " that starts at step 0" if train.cosine_from == "start" else ""
    if train.warmup_steps:
        rate = f"{train.warmup_steps:,} steps of warm-up from {train.warmup_start * train.peak_lr:g}, then {rate}"
    return [
        flops_line(spec.model, train.batch_images, devices, kind),
        f"{train.steps:,} steps of {train.batch_images:,} images, {train.steps * train.batch_images:,} images in all{epochs}",
        f"learning rate: {rate}; weight decay {train.weight_decay:g}",
        f"logged every {loop.log_steps:,} steps, saved every {loop.ckpt_steps:,}",
        *_evaluators(spec),
        f"data: {spec.data.name}, split {spec.data.train_split}: not looked at",
    ]


def _evaluators(spec: RunSpec) -> list[str]:
    def when(steps: int | None) -> str:
        every = spec.eval.steps if steps is None else steps
        return f"every {every:,} steps and at the end" if every else "at the end"

    others = [f"evaluator {name}: {one.type}, {when(one.steps)}" for name, one in spec.evals.items()]
    return [f"evaluator val: classification, split {spec.eval.split}, {when(None)}", *others]


def _where(mesh: Mesh | AbstractMesh) -> str:
    sizes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    return f"mesh: {sizes} = {mesh.size} device(s)"
