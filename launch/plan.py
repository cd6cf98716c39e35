"""How many members train in one process, and on how many devices: chosen here, and said why.

A pack holds the states of all its members, and one member's activations: state * M + batch + temporary <= the device's memory.
The compiled program of one member is asked for these numbers in a process of its own (vit_attn.main --dry-run --dry-run-json),
since a launcher must not take an accelerator.
"""

import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from launch.devices import Devices
from launch.failure import last_words
from launch.grid import Grid
from vit_attn.spec.errors import UserError
from vit_attn.spec.mesh import MESH
from vit_attn.spec.run import RunSpec, static_of
from vit_attn.store.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[1]  # where the packages lie
MEMORY_SHARE = 0.9  # of the device's memory; what is left is for evaluation
LEAST_IMAGES = 32  # a device and step: with fewer, a second device hardly makes a member faster
MIB = 2**20


@dataclass(frozen=True)
class Wish:
    """What the command line says. `pack`: members, "all", "auto", or None: auto on accelerators, all on CPU."""

    pack: str | int | None = None
    devices_per_pack: int | None = None
    max_parallel: int | None = None


@dataclass(frozen=True)
class Plan:
    """`sizes`: at most so many members a pack, by the name of the group that they come from. `slots`: packs at a time (None:
    as many as a queue takes), and `fixed` if there must be as many shares of the devices however few packs are left.
    `measured`: what programs said."""

    sizes: dict[str, int]
    slots: int | None
    fixed: bool
    why: tuple[str, ...]
    measured: dict[str, Any] = field(default_factory=dict)


def make_plan(
    grid: Grid, wish: Wish, devices: Devices | None, known: dict[str, Any], say: Callable[[str], None] = lambda _: None
) -> Plan:
    """`grid`: whole groups of members that could be one pack. `devices`: of this machine; None where packs train elsewhere.
    `known`: what an earlier plan has measured. `say` takes news while programs are compiled. Raises UserError."""
    if isinstance(wish.pack, int) and wish.pack < 1:
        raise UserError(f"--pack={wish.pack} must be at least 1, auto or all")
    if devices is None and wish.devices_per_pack is not None:
        raise UserError(
            f"--devices-per-pack={wish.devices_per_pack} shares out the devices of this machine (--backend local); elsewhere a "
            "pack gets what the backend's own settings ask for"
        )
    here = devices or Devices()
    each, why = _devices_per_pack(grid, wish, here)
    groups = len(here.ids) // each if each else wish.max_parallel or 1
    slots = wish.max_parallel if devices is None else groups
    pack = wish.pack or ("auto" if here.ids else "all")
    measured: dict[str, Any] = {}
    if isinstance(pack, int):
        sizes, more = {one.name: pack for one in grid.packs}, [f"packs of at most {pack} members: --pack"]
    elif pack == "all":
        sizes = {one.name: len(one.members) for one in grid.packs}
        more = ["members that differ in numbers only are one pack" + ("" if wish.pack else "; --pack N makes smaller ones")]
    elif devices is None:
        raise UserError("--pack=auto measures the devices of this machine, and packs train elsewhere: say --pack N, or all")
    else:
        sizes, more, measured = _by_memory(grid, here, groups, known, say)
    return Plan(sizes, slots, bool(each), (*why, *more), measured)


def _devices_per_pack(grid: Grid, wish: Wish, devices: Devices) -> tuple[int, list[str]]:
    """Accelerators for each pack (0: there are none), and why so many."""
    number, wanted, parallel = len(devices.ids), wish.devices_per_pack, wish.max_parallel
    if parallel is not None and parallel < 1:
        raise UserError(f"--max-parallel={parallel} must be at least 1")
    if not number:
        if wanted is not None:
            raise UserError(
                f"--devices-per-pack={wanted}: no accelerator is seen here; --max-parallel N shares out the CPU cores"
            )
        return 0, []
    if wanted is not None and parallel is not None:
        raise UserError(f"--devices-per-pack={wanted} and --max-parallel={parallel} say the same: leave one out")
    if parallel is not None and parallel > number:
        raise UserError(f"--max-parallel={parallel}: a process takes one of the {number} {devices.kind} devices at least")
    shares = sorted({number // groups for groups in range(1, number + 1)})
    if wanted is not None and wanted not in shares:
        choices = ", ".join(map(str, shares))
        raise UserError(f"--devices-per-pack={wanted} leaves devices idle that would be enough: of {number}, take {choices}")
    if wanted is not None or parallel is not None:
        each, reason = wanted or number // (parallel or 1), "--devices-per-pack" if wanted else "--max-parallel"
    else:
        each, reason = _used_well([member.spec for member in grid.members], shares)
    return each, [f"{number} {devices.kind} devices in {number // each} groups of {each}, a process each: {reason}"]


def _used_well(specs: list[RunSpec], shares: list[int]) -> tuple[int, str]:
    """The most devices that divide every batch and leave each LEAST_IMAGES of it."""
    if any(spec.mesh != MESH for spec in specs):
        return shares[-1], "config.mesh lays a run over all devices"
    batches = {spec.train.batch_images for spec in specs}
    good = [each for each in shares if all(batch % each == 0 and batch >= each * LEAST_IMAGES for batch in batches)]
    return max(good, default=1), f"with more, a device would get fewer than {LEAST_IMAGES} of {min(batches)} images a step"


def _by_memory(
    grid: Grid, devices: Devices, slots: int, known: dict[str, Any], say: Callable[[str], None]
) -> tuple[dict[str, int], list[str], dict[str, Any]]:
    """For each group with more than one member, what fits; and no more than keeps all groups of devices at work."""
    sizes, why, measured = {}, [], dict(known)
    groups = [one for one in grid.packs if len(one.members) > 1]
    shares = max(slots // len(grid.packs), 1)
    for number, group in enumerate(groups):
        key = key_of(group.members[0].spec, len(devices.ids) // slots, devices.kind)
        if key not in measured:
            say(f"plan: compiling {group.name} to see how many members fit ({number + 1} of {len(groups)}) ...")
            measured[key] = ask_program(group.members[0].spec, devices.environment(devices.groups(slots)[0]))
        fit, words = what_fits(measured[key], slots)
        if not fit:
            raise UserError(f"--pack=auto: not one member of {group.name} fits: {words}. Try config.train.accumulate or .remat")
        spread = math.ceil(len(group.members) / shares)
        sizes[group.name] = size = min(fit, spread, len(group.members))
        kept_busy = f"; {size}, so that {slots} processes have work" if size == spread < min(fit, len(group.members)) else ""
        why.append(f"{group.name}: up to {fit} members fit ({words}){kept_busy}")
    return sizes, why, measured


def key_of(spec: RunSpec, each: int, kind: str) -> str:
    """Of a program on so many devices."""
    settings = json.dumps(dataclasses.asdict(static_of(spec)), sort_keys=True)
    return f"{hashlib.sha256(settings.encode()).hexdigest()[:16]} on {each} {kind}"


def what_fits(asked: dict[str, Any], slots: int) -> tuple[int, str]:
    """(M, "state 120 MiB each, batch and activations 3,000 of 72,000 MiB") from what a program said; 0: not even one."""
    memory = asked["memory"]
    if memory is None:
        raise UserError("--pack=auto: this kind of device does not say what a program needs: say --pack N")
    limit = asked["device_bytes"] or psutil.virtual_memory().available // slots  # a CPU's devices have the host's
    once = 2 * memory["batch"] + memory["temporary"] + memory["results"]  # the next batch is on its way
    room = MEMORY_SHARE * limit - once
    words = f"state {memory['state'] / MIB:,.1f} MiB each, batches and activations {once / MIB:,.1f} of {limit / MIB:,.0f} MiB"
    return max(int(room // memory["state"]), 0), words


def ask_program(spec: RunSpec, environment: dict[str, str]) -> dict[str, Any]:
    """What vit_attn.main --dry-run-json writes of one member. Raises UserError, with its last words, if it fails."""
    with tempfile.TemporaryDirectory(prefix="vit_attn_plan_") as name:
        run, numbers, log = RunDir(Path(name) / "member"), Path(name) / "numbers.json", Path(name) / "log"
        run.create(spec)
        command = [sys.executable, "-m", "vit_attn.main", "--run", str(run.path), "--dry-run", "--dry-run-json", str(numbers)]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with open(log, "wb") as output:
            done = subprocess.run(
                command,
                env={**os.environ, **environment, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise UserError(f"--pack=auto: {last_words(log, 0).removeprefix('error: ')} (or say --pack N)")
        asked: dict[str, Any] = json.loads(numbers.read_text())
        return asked
