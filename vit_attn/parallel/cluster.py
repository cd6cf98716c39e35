"""Which of several processes this one is: as Slurm, Open MPI, a TPU pod or Kubernetes say it. Nothing is started in here."""

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from vit_attn.spec.errors import UserError

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Process `process` of `processes`, which meet at `coordinator`, HOST:PORT of process 0."""

    processes: int
    process: int
    coordinator: str
    found_by: str
    device: int | None = None  # the only one of this host's GPUs that is this process's; None: all that it sees

    def __str__(self) -> str:
        return f"process {self.process} of {self.processes}, found by {self.found_by}, coordinator {self.coordinator}"


def find_place(env: Environment = os.environ) -> Place | None:
    """None where this process is one alone. Asks nobody but, on a TPU pod or in Kubernetes, that machine's own service."""
    for find in (_slurm, _open_mpi, _tpu_pod, _kubernetes):
        place = find(env)
        if place is not None:
            return place if place.processes > 1 else None
    return None


def _slurm(env: Environment) -> Place | None:
    """The tasks of a step, which srun starts. A batch script or a login shell has SLURM_NTASKS too, and is one process."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    if any(name not in env for name in names):
        return None
    here = _tasks_here(env["SLURM_STEP_TASKS_PER_NODE"], int(env.get("SLURM_NODEID", 0))) if _bindable(env, "SLURM") else 1
    return Place(
        int(env["SLURM_STEP_NUM_TASKS"]),
        int(env["SLURM_PROCID"]),
        f"{_first_host(env['SLURM_STEP_NODELIST'])}:{_port(env['SLURM_JOB_ID'], env['SLURM_STEP_ID'])}",
        "Slurm",
        int(env["SLURM_LOCALID"]) if here > 1 else None,
    )


def _first_host(nodes: str) -> str:
    """ "node[007-015,20]-ib,other" -> "node007-ib"."""
    before, number, after = re.match(r"([^,\[]*)(?:\[([^,\-\]]+)[^\]]*\])?([^,\[]*)", nodes).groups()  # type: ignore[union-attr]
    return f"{before}{number or ''}{after}"


def _tasks_here(tasks_per_node: str, node: int) -> int:
    """ "2(x3),1" -> 2 for the nodes 0, 1, 2 and 1 for node 3."""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks_per_node):
        counts += [int(count)] * int(times or 1)
    return counts[node]


def _bindable(env: Environment, cluster: str) -> bool:
    """Whether tasks that share a host have to share out its GPUs: not if the cluster shows each of them its own."""
    visible = env.get("CUDA_VISIBLE_DEVICES")
    bound = cluster == "SLURM" and ("SLURM_GPUS_PER_TASK" in env or "SLURM_TRES_PER_TASK" in env)
    return not bound and not (visible is not None and "," not in visible)


def _port(*of: str) -> int:
    """The same for all processes of one start, most likely another for any other; above the ports that systems hand out."""
    return 61440 + crc32("/".join(of).encode()) % 4096


def _open_mpi(env: Environment) -> Place | None:
    if any(f"OMPI_COMM_WORLD_{name}" not in env for name in ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK")):
        return None
    size, rank, here, mine = (int(env[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK"))
    launcher = env.get("OMPI_MCA_orte_hnp_uri", "")  # 1501298688.0;tcp://10.0.0.2,10.1.0.2:47531;tcp6://[fd00::2]:51293
    address = re.search(r"tcp://([^,:]+)|tcp6://(\[[^,\]]+)", launcher)
    if here == size:
        host = "localhost"
    elif address:  # of the host where mpirun was called: process 0 is there unless a host file says otherwise
        host = address[1] or f"{address[2]}]"
    else:
        raise UserError(
            f"Open MPI started {size} processes on several hosts and does not say where process 0 is: name an address of it, "
            "--processes $OMPI_COMM_WORLD_SIZE --process $OMPI_COMM_WORLD_RANK --coordinator HOST:PORT, or train --alone"
        )
    port = _port(env.get("PMIX_NAMESPACE") or launcher)
    return Place(size, rank, f"{host}:{port}", "Open MPI", mine if here > 1 and _bindable(env, "OMPI") else None)


def _tpu_pod(env: Environment) -> Place | None:
    """As jax finds the hosts of a slice, or of several: in the environment (GKE), or from the machine's metadata service."""
    if "TPU_LIBRARY_PATH" not in env and not importlib.util.find_spec("libtpu"):
        return None
    hosts = env.get("TPU_PROCESS_ADDRESSES", env.get("TPU_WORKER_HOSTNAMES"))
    if hosts is not None and "," not in hosts and "MEGASCALE_NUM_SLICES" not in env:
        return None  # jax would ask the metadata service for the number of slices
    from jax._src import clusters

    return _as_jax_finds("a TPU pod", clusters.GkeTpuCluster, clusters.GceTpuCluster)


def _kubernetes(env: Environment) -> Place | None:
    """The pods of an indexed Job. jax asks the cluster about it with a package that is not one of this project's own."""
    if "KUBERNETES_SERVICE_HOST" not in env or "JOB_COMPLETION_INDEX" not in env:
        return None
    if not importlib.util.find_spec("kubernetes"):
        return None
    from jax._src import clusters

    return _as_jax_finds("Kubernetes", clusters.K8sCluster)


def _as_jax_finds(name: str, *kinds: Any) -> Place | None:
    port = os.environ.get("JAX_COORDINATOR_PORT")
    try:
        for kind in kinds:
            if kind.is_env_present():
                processes = kind.get_process_count()
                if processes == 1:
                    return None
                address = kind.get_coordinator_address(timeout_secs=300, override_coordinator_port=port)
                return Place(processes, kind.get_process_id(), address, name)
    except Exception as error:  # of a service that answers something else, or not at all
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"{name} did not say which process this is ({reason}): give --processes, --process and --coordinator, "
            "or train --alone"
        ) from error
    return None
