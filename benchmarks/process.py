"""A command run as a process of its own: how long, how much CPU time, how much memory."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
MAIN = ("-m", "vit_attn.main")
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """`cpu`: user and system seconds. `peak`: the largest sum of resident bytes of the process and its children, sampled."""

    wall: float
    cpu: float
    peak: int


def environment(cache: Path) -> dict[str, str]:
    """This one's, with `cache` as the directory of compiled programs."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def measure(arguments: Sequence[str], cache: Path) -> Usage:
    """Runs `python ARGUMENTS` to its end. RuntimeError, with the end of its output, if it fails."""
    with tempfile.TemporaryFile() as output:
        cpu, start, peak = _children_cpu(), time.perf_counter(), 0
        process = psutil.Popen(
            [sys.executable, *arguments], env=environment(cache), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peak = max(peak, _tree_bytes(process))
            time.sleep(SAMPLE_SECONDS)
        wall = time.perf_counter() - start
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{arguments} ended with {process.returncode}:\n{output.read().decode()[-2000:]}")
    return Usage(wall, _children_cpu() - cpu, peak)


def seconds_until(arguments: Sequence[str], cache: Path, starts: str) -> float:
    """From the start of `python ARGUMENTS` until it prints a line that begins with `starts`; then it is killed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(cache),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    said = []
    with process, process.stdout:
        for line in process.stdout:
            if line.startswith(starts):
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
            said.append(line)
    raise RuntimeError(f"{arguments} never said {starts!r}:\n{''.join(said)[-2000:]}")


def _tree_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between two looks
    return total


def _children_cpu() -> float:
    """CPU seconds of all child processes that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
