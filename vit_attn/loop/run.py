"""A pack from its run directories to its results: checks, build, restore, train, finish."""

import importlib.metadata
import platform
import sys
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview

from vit_attn.data.pipeline import train_batches
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.data.sources.tfrecord import TFRecords
from vit_attn.data.workers import Workers, available_cores
from vit_attn.evals.evaluator import Evaluator
from vit_attn.evals.table import open_evaluators
from vit_attn.loop.attention import attention_line
from vit_attn.loop.disk import disk_named
from vit_attn.loop.last_words import last_words
from vit_attn.loop.member import Member, open_member
from vit_attn.loop.memory import memory_line
from vit_attn.loop.program import Program
from vit_attn.loop.stop import Stop, stopping
from vit_attn.loop.train import Pack
from vit_attn.parallel.mesh import check_batches, make_mesh
from vit_attn.parallel.processes import from_first, is_first, say, watch
from vit_attn.spec.check_evals import check_id_files
from vit_attn.spec.errors import UserError
from vit_attn.spec.flops import flops_line, flops_per_image
from vit_attn.spec.run import RunSpec, flat, static_of
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.run_dir import RunDir, file_lock, write_json
from vit_attn.train.init_from import check_init_from
from vit_attn.train.placement import left_whole
from vit_attn.train.saved import abstract_state

FINISHED_CODE, STOPPED_CODE = 0, 3


@dataclass(frozen=True)
class Request:
    """What the command line asks for: these runs, in these directories, as one pack."""

    runs: dict[RunDir, RunSpec]
    overwrite: bool = False
    parent: int | None = None  # stop when this process is gone
    lock_seconds: float = 0.0  # how long to wait for another process to let go of a directory
    profile: bool = False  # of a few steps; see loop.profile


def run_pack(request: Request) -> int:
    """Trains what is unfinished. Exit code 0: all is finished, or paused as config.loop.until says; 3: stopped by a signal,
    saved, run again to go on.

    Raises UserError before anything is created, compiled or deleted if the runs cannot be.
    """
    specs = list(request.runs.values())
    spec = specs[0]
    check_one_pack(specs)
    check_id_files(spec)
    data = spec.data
    source = open_source(
        data.split(data.train_split),
        spec.model.num_classes,
        stream_window=data.stream_window,
        timeout_seconds=data.timeout_seconds,
    )
    evaluators = open_evaluators(spec)
    _tell_length(spec, source)
    mesh = make_mesh(spec.mesh)
    say(attention_line(spec, mesh))
    for line in (note for evaluator in evaluators for note in evaluator.notes):
        say(f"note: {line}")
    check_batches(spec, mesh)
    for line in left_whole(spec, abstract_state(spec).params, mesh):
        say(f"note: {line}")
    _check_places(request)
    with ExitStack() as stack:
        stop = stack.enter_context(stopping(request.parent))
        stack.enter_context(disk_named(request.runs))
        if is_first():
            _take_directories(request, stack)
        unfinished = from_first(np.array([not run_dir.status().over(one.loop.until) for run_dir, one in request.runs.items()]))
        todo = {run_dir: one for (run_dir, one), wanted in zip(request.runs.items(), unfinished, strict=True) if wanted}
        if peers := watch():
            peers.last_words = partial(last_words, list(todo), peers)
        return _train(todo, source, evaluators, mesh, stop, request.profile) if todo else FINISHED_CODE


def _tell_length(spec: RunSpec, source: Source) -> None:
    epochs, images = spec.train.epochs, spec.train.epoch_images
    if epochs is not None and images != len(source):
        say(
            f"note: split {source.split!r} of data set {source.name} has {len(source)} images, and config.train.epoch_images="
            f"{images}: the {spec.train.steps} steps are {epochs:g} epochs of the latter"
        )


def _take_directories(request: Request, stack: ExitStack) -> None:
    """Locks them for as long as the stack lasts, and makes them the runs' own."""
    for run_dir, one in request.runs.items():
        place = run_dir.place(one)
        if place.apart and not place.remote:  # in a bucket nothing can be locked
            place.root.mkdir(parents=True, exist_ok=True)
            held = f"config.loop.ckpt_dir: {place.root} is being written by another run"
            stack.enter_context(file_lock(Path(place.root) / ".lock", held, request.lock_seconds))
        run_dir.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(run_dir.locked(request.lock_seconds))
        if request.overwrite:
            run_dir.clear(one)
        run_dir.check(one)  # again: another process may have been here a moment ago
        run_dir.create(one)
        place.claim(one)


def _check_places(request: Request) -> None:
    """Raises UserError if two runs would save at the same place, or one could not start from what config.init_from names."""
    runs = {run_dir: run_dir.place(one) for run_dir, one in request.runs.items()}
    if len(set(runs.values())) < len(runs):
        raise UserError(
            f"config.loop.ckpt_dir={next(iter(request.runs.values())).loop.ckpt_dir!r} is the same directory for several runs: "
            "write {name} into it, which becomes the name of each run's directory"
        )
    for (run_dir, place), one in zip(runs.items(), request.runs.values(), strict=True):
        if one.init_from is not None and (request.overwrite or not place.steps()):
            check_init_from(one, [run_dir.path, place.root] if request.overwrite else [])


def check_one_pack(specs: list[RunSpec]) -> None:
    """Raises UserError unless the runs differ in knobs only."""
    first = flat(static_of(specs[0]))
    for other in specs[1:]:
        second = flat(static_of(other))
        if different := [key for key in {**first, **second} if first.get(key) != second.get(key)]:
            raise UserError(f"these runs cannot be one pack, they differ in {', '.join(different)}: run them one by one")


def _train(
    runs: dict[RunDir, RunSpec],
    source: Source,
    evaluators: list[Evaluator],
    mesh: jax.sharding.Mesh,
    stop: Stop,
    profile: bool,
) -> int:
    spec = next(iter(runs.values()))
    stores = {run_dir: Checkpoints(run_dir, one.loop) for run_dir, one in runs.items()}
    fresh = any(not store.steps() for store in stores.values())
    where = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    say(f"compiling for {jax.device_count()} {jax.devices()[0].device_kind} device(s){where} ...")
    workers = _workers(spec, [source, *(one.source for evaluator in evaluators for one in evaluator.passes.values())])
    program = Program(spec, mesh, evaluators, fresh)
    members = [open_member(run_dir, one, program, stores[run_dir]) for run_dir, one in runs.items()]
    for run_dir in runs if is_first() else ():
        write_json(run_dir.path / "env.json", _environment(spec))
    _print_start(members, program)
    pack = Pack(members, program, evaluators, workers, profile)
    rows = program.local_rows(spec.train.batch_images)
    try:
        with closing(workers), closing(train_batches(spec, source, pack.step, workers, rows)) as batches:
            stopped = pack.train(batches, stop)
        while pack.members:
            member = pack.members[0]
            step = max(pack.step, member.start)
            ended = "done" if step == spec.train.steps else "paused"
            member.end("stopped" if stopped else ended, step, stopped)
            pack.members.remove(member)
    except BaseException as error:
        for member in pack.members if watch() is None else ():  # several processes: see last_words
            with suppress(OSError):  # a full disk must not hide what happened
                member.fail(max(pack.step, member.start), error)
        raise
    say(f"stopped at step {pack.step}, saved: {stopped}; the same command goes on" if stopped else _outcome(members))
    return STOPPED_CODE if stopped else FINISHED_CODE


def _workers(spec: RunSpec, sources: list[Source]) -> Workers:
    """As config.data says; but a stream of TFRecords is held in memory by each process that reads it, so threads share one."""
    processes, threads = spec.data.workers, spec.data.threads
    if processes and any(isinstance(source, TFRecords) for source in sources):
        threads = available_cores() if processes < 0 else processes
        say(f"note: a data set is prepared as tfrecord: {threads} threads read it instead of config.data.workers={processes}")
        processes = 0
    return Workers(processes, threads)


def _outcome(members: list[Member]) -> str:
    lines = []
    for member in members:
        status = member.run_dir.status()
        metrics = ", ".join(f"{key} {value:.4g}" for key, value in status.metrics.items() if key.startswith("val/"))
        lines.append(f"{member.run_dir.path}: {status.message or status.state} | {metrics}")
    return "\n".join(lines)


def _print_start(members: list[Member], program: Program) -> None:
    spec, state, kind = members[0].spec, members[0].state, jax.devices()[0].device_kind
    say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    say(flops_line(spec.model, spec.train.batch_images, jax.device_count(), kind))
    if memory := memory_line(program.update_compiled, state, len(members)):
        say(memory)
    for member in members:
        whence = f"resumes at step {member.start}" if member.start else "starts"
        say(f"{member.run_dir.path}: {whence} (of {member.spec.train.steps})")


def _environment(spec: RunSpec) -> dict[str, object]:
    """What a result depends on besides its config. No environment variables: they may hold secrets."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
    return {
        "command": sys.argv,
        "directory": str(Path.cwd()),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "host": platform.node(),
        "flops_per_image": flops_per_image(spec.model),
    }
