"""Runs a snippet in a process that has the TPU compiler: programs for TPUs that are not here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tpu.compiler import ENVIRONMENT, NoCompiler, library

ROOT = Path(__file__).resolve().parent.parent


def run(snippet: str) -> Any:
    """What `snippet` prints last, as JSON. Skips the test, with the way out, where there is no compiler."""
    try:
        path = library()
    except NoCompiler as error:
        pytest.skip(str(error))
    env = {**os.environ, **ENVIRONMENT, "TPU_LIBRARY_PATH": str(path), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env.pop("XLA_FLAGS", None)
    done = subprocess.run([sys.executable, "-c", snippet], env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
