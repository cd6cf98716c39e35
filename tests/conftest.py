"""Before jax is imported: 8 CPU devices, and every shape annotation checked while tests run."""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8"  # compiles fast
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vit_attn_tests_")
sys.path.insert(0, str(ROOT))  # configs, launch, benchmarks
os.chdir(ROOT)

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["vit_attn.ops", "vit_attn.models", "vit_attn.train", "vit_attn.evals"], "beartype.beartype")

import clu.metric_writers  # noqa: E402, F401
import hypothesis  # noqa: E402, F401
import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# clu and hypothesis come first because Python 3.11 cannot parse in two threads at a time, as pytest's import hook would.
