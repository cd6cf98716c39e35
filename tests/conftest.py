"""Before jax is imported: 8 CPU devices, and every shape annotation checked while tests run."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8"  # compiles fast
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
FIRST = "PYTEST_XDIST_WORKER" not in os.environ  # its workers share what it and the others have compiled
if FIRST:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vit_attn_tests_")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
sys.path.insert(0, str(ROOT))  # configs, launch, benchmarks
os.chdir(ROOT)

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["vit_attn.ops", "vit_attn.models", "vit_attn.train", "vit_attn.evals"], "beartype.beartype")

import clu.metric_writers  # noqa: E402, F401
import hypothesis  # noqa: E402, F401
import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# clu and hypothesis come first because Python 3.11 cannot parse in two threads at a time, as pytest's import hook would.


def pytest_unconfigure() -> None:
    if FIRST:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
