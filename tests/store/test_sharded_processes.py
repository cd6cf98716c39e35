"""States whose shards lie in two processes: real processes, met over loopback."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from trainer_runs import ROOT

PROGRAM = Path(__file__).with_name("sharded_process.py")


def together(processes, devices, action, layout, *folders):
    """What each process printed. Each may have a folder of its own: a disk that shows other bytes to one of them."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{PROGRAM.parent}"}
    running = []
    for process in range(processes):
        words = [process, processes, port, action, layout, folders[min(process, len(folders) - 1)]]
        argv = [sys.executable, str(PROGRAM), *map(str, words)]
        running.append(subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    printed = []
    for one in running:
        out, errors = one.communicate(timeout=200)
        assert one.returncode == 0, errors[-3000:]
        printed.append([line for line in out.splitlines() if line.startswith(("same", "refused"))])
    return printed


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    together(2, 2, "save", "crossed", folder)
    return folder


def test_written_by_two_processes_read_by_one(saved):
    assert together(1, 8, "restore", "fsdp and model", saved) == [["same", "same"]]


def test_written_by_two_processes_read_by_two_otherwise(saved, tmp_path):
    """And one of them finds a member's checkpoint damaged: both refuse it."""
    one, other = (shutil.copytree(saved, tmp_path / name) for name in ("one", "other"))
    files = [file for file in (other / "b" / "checkpoints" / "4" / "state" / "d").iterdir() if file.is_file()]
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 8
        file.write_bytes(bytes(data))
    first, second = together(2, 2, "restore", "by rows", one, other)
    assert [line.split(":")[0] for line in first] == ["same", "refused"]
    assert "another process could not" in first[1]
    assert [line.split(":")[0] for line in second] == ["same", "refused"]
    assert "cannot be read" in second[1]
