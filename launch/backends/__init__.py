"""The places where a sweep can run, by the name that --backend takes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from launch.backends.gke import Gke, GkeOptions
from launch.backends.job import Backend
from launch.backends.local import Local
from launch.backends.options import options
from launch.backends.slurm import Slurm, SlurmOptions
from launch.backends.tpu_vm import TpuVm, TpuVmOptions
from launch.sweep_dir import SweepDir


@dataclass(frozen=True)
class Site:
    """What a backend is made of. `todo`: packs with a member to finish; `max_parallel` is None where it was not given; `pairs`:
    the settings behind the backend's name."""

    sweep: SweepDir
    todo: int
    max_parallel: int | None = None
    pairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """How many processes of this machine train at a time."""
        return max(min(self.max_parallel or 1, self.todo), 1)


@dataclass(frozen=True)
class NoOptions:
    """Of a backend that has none."""


def local(site: Site) -> Backend:
    options(NoOptions, "local", site.pairs)
    return Local(site.slots)


def slurm(site: Site) -> Backend:
    return Slurm(site.sweep, site.max_parallel, options(SlurmOptions, "slurm", site.pairs))


def tpu_vm(site: Site) -> Backend:
    return TpuVm(site.sweep, site.max_parallel, options(TpuVmOptions, "tpu-vm", site.pairs))


def gke(site: Site) -> Backend:
    return Gke(site.sweep, site.max_parallel, options(GkeOptions, "gke", site.pairs))


BACKENDS: dict[str, Callable[[Site], Backend]] = {"local": local, "slurm": slurm, "tpu-vm": tpu_vm, "gke": gke}
