"""Every config file resolves, and its network has the shapes that it says."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from launch.grid import load_grid
from vit_attn.ops.nonlinearity import NONLINEARITY, POINTWISE, Numbers
from vit_attn.spec.load import load_run
from vit_attn.spec.run import Knobs, static_of
from vit_attn.train.state import init_state

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.name not in ("__init__.py", "common.py"))
SWEEPS = sorted(path for path in (ROOT / "configs" / "sweeps").glob("*.py") if path.name != "__init__.py")


def shapes(spec):
    number = jax.ShapeDtypeStruct((), jnp.float32)
    knobs = Knobs(Numbers(*(number for _ in Numbers._fields)), number, number, jax.ShapeDtypeStruct((), jnp.uint32))
    return jax.eval_shape(partial(init_state, static_of(spec)), knobs).params


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config(path):
    assert path.read_text().startswith('"""')
    spec = load_run(str(path), {})
    assert shapes(spec)["head"]["kernel"].shape == (spec.model.width, spec.model.num_classes)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_sweep(path):
    grid = load_grid(str(path), {})
    assert len({member.name for member in grid.members}) == len(grid.members) > 1


@pytest.mark.parametrize("h", NONLINEARITY)
def test_quickstart_arguments(h):
    alpha = ",alpha=0.5" if h in POINTWISE else ""
    spec = load_run(f"configs/quickstart.py:h={h}{alpha},patch=4,seed=7", {"train.peak_lr": 3e-4})
    assert (spec.model.attention.h, spec.model.attention.alpha) == (h, 0.5 if h in POINTWISE else None)
    assert (spec.model.patch, spec.model.image_size, spec.seed, spec.train.peak_lr) == (4, 28, 7, 3e-4)


def test_quickstart_takes_any_size():
    spec = load_run("configs/quickstart.py:h=relu2,alpha=1,variant=S/16", {})
    assert (spec.model.width, spec.model.depth, spec.model.heads, spec.model.image_size) == (384, 12, 6, 32)


def test_the_quickstart_sweep_is_the_one_promised():
    """softmax once and relu, relu2 over five alphas at L = 16; softmax and relu over the same at L = 49."""
    members = load_grid("configs/sweeps/quickstart_alpha.py", {}).members
    points = {(m.spec.model.attention.h, m.spec.model.attention.alpha, m.spec.model.patch) for m in members}
    alphas = (0.0, 0.5, 1.0, 1.5, 2.0)
    want = {("softmax", None, 7), ("softmax", None, 4)}
    want |= {(h, alpha, 7) for h in ("relu", "relu2") for alpha in alphas} | {("relu", alpha, 4) for alpha in alphas}
    assert points == want
    assert len(members) == 17
