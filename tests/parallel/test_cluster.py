"""What clusters say of a process: environments as srun, mpirun, GKE and the metadata service of a TPU leave them."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from jax._src.clusters import cloud_tpu_cluster

from vit_attn.parallel.cluster import Place, find_place
from vit_attn.spec.errors import UserError

BATCH = {  # of an sbatch script; the names are those of Slurm 22.05, the values those of three nodes
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "gpu[007-009]",
    "SLURM_NODELIST": "gpu[007-009]",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_TASKS_PER_NODE": "2(x3)",
}
STEP = {  # of the fourth task that srun starts in it
    **BATCH,
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEPID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-009]",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
}
MPI = {  # of mpirun, Open MPI 4.1: two processes on one of two hosts
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "1501298688.0;tcp://192.0.2.2,10.0.0.2:47531;tcp6://[fd00::2]:51293",
    "PMIX_NAMESPACE": "1501298689",
}


def host(place):
    return place.coordinator.rpartition(":")[0]


def test_a_step_of_slurm():
    place = find_place(STEP)
    assert (place.processes, place.process, host(place), place.found_by) == (6, 3, "gpu007", "Slurm")
    assert str(place) == f"process 3 of 6, found by Slurm, coordinator {place.coordinator}"


@pytest.mark.parametrize("env", [{}, BATCH, {**STEP, "SLURM_STEP_NUM_TASKS": "1"}], ids=["nothing", "batch script", "one task"])
def test_one_process_is_alone(env):
    assert find_place(env) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("n[3,7-9],m1", "n3"),
        ("n[007-015]", "n007"),
        ("n[1-2]-ib,m", "n1-ib"),
        ("dgx-a[01-02]", "dgx-a01"),
    ],
)
def test_the_first_node(nodes, first):
    assert host(find_place({**STEP, "SLURM_STEP_NODELIST": nodes})) == first


def test_all_tasks_of_a_step_meet_and_those_of_another_step_do_not_come():
    ports = [find_place({**STEP, "SLURM_PROCID": str(task)}).coordinator for task in range(6)]
    other = [find_place({**STEP, **change}).coordinator for change in ({"SLURM_STEP_ID": "1"}, {"SLURM_JOB_ID": "4712"})]
    assert len({*ports}) == 1
    assert len({*ports, *other}) == 3
    assert all(1024 < int(one.rpartition(":")[2]) < 65536 for one in (*ports, *other))


@pytest.mark.parametrize(
    ("change", "device"),
    [
        ({}, 1),  # two tasks on the host: one device each
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None),  # the cluster shows each its own
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "5,1"}, None),  # the only task of its host
        ({"SLURM_STEP_TASKS_PER_NODE": "1,5"}, 1),
    ],
)
def test_which_gpus_are_mine(change, device):
    assert find_place({**STEP, **change}).device == device


def test_open_mpi():
    place = find_place(MPI)
    assert (place.processes, place.process, host(place), place.device) == (3, 1, "192.0.2.2", 1)
    assert host(find_place({**MPI, "OMPI_COMM_WORLD_SIZE": "2"})) == "localhost"  # all on this host
    assert host(find_place({**MPI, "OMPI_MCA_orte_hnp_uri": "1.0;tcp6://[fd00::2]:51293"})) == "[fd00::2]"
    assert find_place({**MPI, "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}) is None
    without = {key: value for key, value in MPI.items() if key != "OMPI_MCA_orte_hnp_uri"}  # Open MPI 5
    with pytest.raises(UserError, match="--coordinator HOST:PORT"):
        find_place(without)


def on_a_tpu(monkeypatch, **env):
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/lib/libtpu.so")
    for key, value in env.items():
        monkeypatch.setenv(key, value)


def test_a_tpu_pod_in_kubernetes(monkeypatch):
    on_a_tpu(
        monkeypatch, TPU_WORKER_HOSTNAMES="localhost,other", TPU_WORKER_ID="1", MEGASCALE_NUM_SLICES="2", MEGASCALE_SLICE_ID="1"
    )
    monkeypatch.setenv("MEGASCALE_COORDINATOR_ADDRESS", "localhost:8080")
    assert find_place() == Place(4, 3, "localhost:8482", "a TPU pod")


def test_a_single_tpu_host_in_kubernetes_asks_nobody(monkeypatch):
    on_a_tpu(monkeypatch, TPU_WORKER_HOSTNAMES="localhost", TPU_WORKER_ID="0", GCE_METADATA_IP="127.0.0.1:1")
    assert find_place() is None


@pytest.mark.parametrize(
    ("workers", "wanted"), [("localhost", None), ("a:1:127.0.0.1,b:2:127.0.0.2", Place(2, 1, "127.0.0.1:8482", "a TPU pod"))]
)
def test_a_tpu_vm(monkeypatch, workers, wanted):
    """A metadata service as a TPU VM has it, real HTTP."""
    values = {"agent-worker-number": "1", "worker-network-endpoints": workers, "tpu-env": "ZONE: 'x'\n"}

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(values[self.path.rpartition("/")[2]].encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        on_a_tpu(monkeypatch, GCE_METADATA_IP=f"127.0.0.1:{server.server_port}")
        monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
        assert find_place() == wanted
        server.shutdown()


def test_a_pod_of_a_plain_deployment_is_alone():
    assert find_place({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "web-1"}) is None
