"""What a sweep will cost: core-hours of training, and bytes of checkpoints, before any of it is spent.

A core is what jax counts as one device: a TPU core, a GPU, all of a process's CPU cores.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from launch.devices import Devices
from launch.grid import Grid, Member
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.flops import flops_per_image, peak_flops
from vit_attn.spec.run import RunSpec, static_of
from vit_attn.spec.size import checkpoint_bytes
from vit_attn.store.kept import kept
from vit_attn.store.run_dir import FINISHED, RunDir, Status

CPU_CORE_FLOPS = 160e9  # of one core: a guess. Products of a ViT-S/16 in float32 ran at 65 to 95 GFLOP/s on a server's
KINDS = {  # --device -> as vit_attn.spec.flops knows it
    **{name: f"TPU {name}" for name in ("v2", "v3", "v4", "v5e", "v5p", "v6e")},
    **{name.lower(): f"NVIDIA {name}" for name in ("A100", "H100", "H200", "B200", "L4", "L40S")},
}
DEVICES = (*KINDS, "cpu")
HOUR = 3600.0


class Rate(Protocol):
    @property
    def words(self) -> str:
        """Where the numbers come from."""

    def core_hours(self, spec: RunSpec) -> float:
        """Of a whole run."""


@dataclass(frozen=True)
class ByFlops:
    """The model's matrix products at `mfu` of `peak` FLOP/s a device."""

    peak: float
    mfu: float
    words: str

    def core_hours(self, spec: RunSpec) -> float:
        return work(spec) / (self.peak * self.mfu) / HOUR


@dataclass(frozen=True)
class ByMeasurement:
    """Core-hours a step, measured of some programs; of the others, in proportion to their products."""

    a_step: Mapping[RunSpec, float]  # by static settings
    words: str

    def core_hours(self, spec: RunSpec) -> float:
        known = self.a_step.get(static_of(spec))
        if known is None:
            known = sum(self.a_step.values()) * a_step(spec) / sum(map(a_step, self.a_step))
        return known * spec.train.steps


@dataclass(frozen=True)
class Cost:
    """Of one member. `left`: core-hours still to be spent. `stored`: bytes of its checkpoints once it is finished."""

    core_hours: float
    left: float
    stored: int


def a_step(spec: RunSpec) -> float:
    """FLOPs of one step's products."""
    return float(flops_per_image(spec.model) * spec.train.batch_images)


def work(spec: RunSpec) -> float:
    return a_step(spec) * spec.train.steps


def choose_rate(
    grid: Grid, statuses: Mapping[str, Status], devices: Devices, device: str | None, mfu: float, step_ms: float | None, on: int
) -> Rate:
    """--step-ms first, then a stated --device, then members of the sweep that are finished, then the devices that are here.

    `on`: devices that a step of --step-ms was measured on. Raises UserError.
    """
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu={mfu:g} must be above 0 and at most 1: the share of the devices' peak that training gets")
    if step_ms is not None:
        if not step_ms > 0:
            raise UserError(f"--step-ms={step_ms:g} must be above 0: milliseconds of one step of one member")
        first = grid.members[0]
        words = f"{step_ms:g} ms a step of {first.name} on {on} device(s); others in proportion to their products"
        return ByMeasurement({static_of(first.spec): step_ms * on / 1000 / HOUR}, words)
    if device is not None and device not in DEVICES:
        raise unknown("--device: the device", device, DEVICES)
    measured = _measured(grid, statuses) if device is None else {}
    if measured:
        return ByMeasurement(measured, f"measured: members of {len(measured)} programs that are finished")
    return _by_flops(device, devices, mfu)


def _by_flops(device: str | None, devices: Devices, mfu: float) -> ByFlops:
    kind = KINDS.get(device or "", "" if device else devices.kind)
    peak = peak_flops(kind)
    if peak is None:
        cores, kind = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, "CPU"
        return ByFlops(cores * CPU_CORE_FLOPS, mfu, _words(mfu, cores * CPU_CORE_FLOPS, f"{cores} CPU cores", "a guess"))
    return ByFlops(peak, mfu, _words(mfu, peak, f"a {kind}", "bfloat16"))


def _words(mfu: float, peak: float, of: str, kind: str) -> str:
    return f"matrix products at --mfu {mfu:g} of the {peak / 1e12:g} TFLOP/s of {of} ({kind})"


def _measured(grid: Grid, statuses: Mapping[str, Status]) -> dict[RunSpec, float]:
    """Core-hours a step of the programs of which a member is done: the mean of its members."""
    found: dict[RunSpec, list[float]] = {}
    for member in grid.members:
        status = statuses[member.name]
        hours = status.metrics.get("speed/core_hours")
        if status.state == "done" and hours and status.step:
            found.setdefault(static_of(member.spec), []).append(hours / status.step)
    return {spec: sum(values) / len(values) for spec, values in found.items()}


def statuses_of(grid: Grid, sweep: SweepDir) -> dict[str, Status]:
    return {member.name: RunDir(sweep.path / member.name).status() for member in grid.members}


def costs(grid: Grid, rate: Rate, statuses: Mapping[str, Status]) -> dict[str, Cost]:
    """By the names of the members. Members that share a program cost the same, and are computed once."""
    whole: dict[RunSpec, tuple[float, int]] = {}

    def cost(member: Member) -> Cost:
        static, status = static_of(member.spec), statuses[member.name]
        if static not in whole:
            whole[static] = rate.core_hours(member.spec), checkpoint_bytes(member.spec) * checkpoints_kept(member.spec)
        hours, stored = whole[static]
        left = 0.0 if status.state in FINISHED else 1.0 - status.step / member.spec.train.steps
        return Cost(hours, hours * left, stored)

    return {member.name: cost(member) for member in grid.members}


def checkpoints_kept(spec: RunSpec) -> int:
    """At the end of a run, as store.kept has it; the best one counts, for it may be none of the newest."""
    steps = {*range(spec.loop.ckpt_steps, spec.train.steps, spec.loop.ckpt_steps), spec.train.steps}
    stay = len(kept({step: {} for step in steps}, spec.loop))
    return min(stay + (spec.loop.ckpt_best is not None), len(steps))
