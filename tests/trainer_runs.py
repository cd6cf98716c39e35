"""Real runs of the trainer for tests: a tiny model on the embedded images, as processes or in this process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from vit_attn.main import main
from vit_attn.spec.errors import exit_code_of

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "model.variant": "mu/14",
    "train.steps": 12,
    "train.warmup_steps": 2,
    "train.batch_images": 16,
    "eval.split": "validation[:37]",
    "eval.batch_images": 16,
    "eval.steps": 6,
    "loop.log_steps": 2,
    "loop.ckpt_steps": 4,
}


def command(workdir, config="configs/quickstart.py:h=relu", **overrides):
    """The command line of a tiny run; `train__steps=5` overrides config.train.steps."""
    settings = {**SETTINGS, **{key.replace("__", "."): value for key, value in overrides.items()}}
    return ["--config", config, "--workdir", str(workdir), *(f"--config.{key}={value}" for key, value in settings.items())]


def run_here(*argv):
    """The command in this process (8 CPU devices): its exit code."""
    return exit_code_of(lambda: main([str(word) for word in argv]))


def start(argv, log, **environment):
    """The command as a process of its own with one CPU device; its output goes to the file `log`."""
    env = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "vit_attn.main", *map(str, argv)],
        cwd=ROOT,
        env=env,
        stdout=open(log, "w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(argv, log, code=0):
    """Runs the command to its end and returns what it printed."""
    assert start(argv, log).wait(timeout=300) == code, Path(log).read_text()[-3000:]
    return Path(log).read_text()


def wait_for(process, log, text):
    """Until the process has printed `text`."""
    deadline = time.monotonic() + 200
    while text not in Path(log).read_text():
        assert process.poll() is None, Path(log).read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_at(argv, log, text, number=signal.SIGTERM, group=False, **environment):
    """Starts the command, sends it (or all its `group`) a signal as soon as it printed `text`, and returns its exit code."""
    process = start(argv, log, **environment)
    wait_for(process, log, text)
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return process.wait(timeout=100)


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start_together(argv, log, processes, devices, each=()):
    """Starts `processes` processes with `devices` CPU devices each that train one run; `each`: more words for each of them."""
    flags, port = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0", free_port()
    running = []
    for process in range(processes):
        meet = ["--processes", processes, "--process", process, "--coordinator", f"localhost:{port}"] if processes > 1 else []
        own = each[process] if each else []
        running.append(start([*argv, *meet, *own], f"{log}.{process}", XLA_FLAGS=flags))
    return running


def together(argv, log, processes, devices, each=()):
    """(exit codes, what they printed) of such processes."""
    return ended(start_together(argv, log, processes, devices, each), log)


def ended(running, log, seconds=300):
    """(exit codes, what they printed) of processes once they have ended by themselves."""
    try:
        codes = [one.wait(timeout=seconds) for one in running]
    finally:
        for one in running:
            one.kill()
    return codes, [Path(f"{log}.{process}").read_text() for process in range(len(running))]


def saved_steps(workdir):
    return sorted(int(entry.name) for entry in Path(workdir, "checkpoints").iterdir() if entry.name.isdecimal())


def saved_arrays(workdir, step=None):
    """{"params/...": array} of a checkpoint (the newest), read without any of our own code."""
    folder = Path(workdir, "checkpoints", str(saved_steps(workdir)[-1] if step is None else step), "state").absolute()
    reader = ocp.PyTreeCheckpointer()
    on_the_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(folder).item_metadata.tree)
    tree = reader.restore(folder, restore_args=on_the_host)  # whatever the devices were that it was saved on
    found = {}

    def walk(prefix, node):
        if isinstance(node, dict):
            for key, value in node.items():
                walk(f"{prefix}/{key}", value)
        elif isinstance(node, list | tuple):
            for index, value in enumerate(node):
                walk(f"{prefix}/{index}", value)
        elif node is not None:
            found[prefix] = np.asarray(node)

    walk("", tree)
    return found


def assert_same_arrays(one, other):
    assert one.keys() == other.keys()
    assert len(one) > 20
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_close(one, other):
    """The order of sums over devices differs."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=2e-5, err_msg=name)


def without_speed(rows):
    """Metrics without what the clock says."""
    of_clock = ("speed/", "memory/", "data/wait", "data/images_per")
    return [{key: value for key, value in row.items() if not key.startswith(of_clock)} for row in rows]
