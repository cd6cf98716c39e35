"""The accelerators of this machine, found without touching them, and how a process is given some of them."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_attn.spec.errors import UserError

# How the chips of one process lie (x,y,z), by their number: jax asks for it where a process sees only a part of a TPU host.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
TPU_KINDS = {"v2": "TPU v2", "v3": "TPU v3", "v4": "TPU v4", "v5litepod": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6e"}


@dataclass(frozen=True)
class Devices:
    """`kind`: as jax names it, "" if that does not show. `ids`: of the GPUs or TPU chips (a chip of v2 and v3 is two of jax's
    devices); none on a machine that has CPU cores only."""

    platform: str = "cpu"  # cpu, gpu, tpu
    kind: str = "cpu"
    ids: tuple[str, ...] = ()

    def groups(self, number: int) -> list[tuple[str, ...]]:
        """Disjoint groups of len(ids) // number; without accelerators, empty ones. Raises UserError for too many groups."""
        size = len(self.ids) // number
        if self.ids and not size:
            raise UserError(f"--max-parallel={number}: a process takes one of the {len(self.ids)} {self.kind} devices at least")
        return [self.ids[group * size : (group + 1) * size] for group in range(number)]

    def environment(self, ids: Sequence[str]) -> dict[str, str]:
        """The variables that make a process see `ids` only; none where it may see all."""
        if not ids or len(ids) == len(self.ids):
            return {}
        if self.platform == "gpu":
            return {"CUDA_VISIBLE_DEVICES": ",".join(ids)}
        bounds = TPU_BOUNDS.get(len(ids), f"1,{len(ids)},1")
        return {
            "TPU_VISIBLE_CHIPS": ",".join(ids),
            "TPU_CHIPS_PER_PROCESS_BOUNDS": bounds,
            "TPU_PROCESS_BOUNDS": "1,1,1",
        }


def find_devices(environ: Mapping[str, str] = os.environ, dev: Path = Path("/dev")) -> Devices:
    """As JAX_PLATFORMS, CUDA_VISIBLE_DEVICES and TPU_VISIBLE_CHIPS leave them to this process."""
    allowed = environ.get("JAX_PLATFORMS", "")
    if (not allowed or re.search("cuda|gpu", allowed)) and (gpus := _gpus(environ)):
        return Devices("gpu", next(iter(gpus.values())), tuple(gpus))
    if (not allowed or "tpu" in allowed) and (chips := _chips(environ, dev)):
        kind = environ.get("TPU_ACCELERATOR_TYPE", "").partition("-")[0]
        return Devices("tpu", TPU_KINDS.get(kind, ""), chips)
    return Devices()


def _gpus(environ: Mapping[str, str]) -> dict[str, str]:
    """{"0": "NVIDIA H100 80GB HBM3"}: NVIDIA's, by what CUDA_VISIBLE_DEVICES calls them."""
    command = ["nvidia-smi", "--query-gpu=index,name", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, env=dict(environ)).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    names = {index.strip(): name.strip() for index, _, name in (line.partition(",") for line in told.splitlines() if line)}
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is None or not names:
        return names
    first = next(iter(names.values()))
    wanted = [one.strip() for one in given.split(",") if one.strip() not in ("", "-1", "NoDevFiles")]
    return {one: names.get(one, first) for one in wanted}  # they may also be named by UUID


def _chips(environ: Mapping[str, str], dev: Path) -> tuple[str, ...]:
    """TPU chips: only where jax could use them."""
    if importlib.util.find_spec("libtpu") is None:
        return ()
    if given := environ.get("TPU_VISIBLE_CHIPS"):
        return tuple(one.strip() for one in given.split(","))
    there = [*dev.glob("accel[0-9]*"), *(dev / "vfio").glob("[0-9]*")]
    return tuple(str(number) for number in range(len(there)))
