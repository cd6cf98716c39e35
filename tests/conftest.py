"""Before jax is imported: 8 CPU devices, and every shape annotation checked while tests run."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
sys.path.insert(0, str(ROOT))  # configs, launch, benchmarks
os.chdir(ROOT)

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["vit_attn.ops", "vit_attn.models", "vit_attn.train", "vit_attn.evals"], "beartype.beartype")

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
