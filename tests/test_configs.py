"""Every config file resolves, and its network has the shapes that it says."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from launch.grid import load_grid
from vit_attn.ops.nonlinearity import NONLINEARITY, POINTWISE, Numbers
from vit_attn.spec.errors import UserError
from vit_attn.spec.load import load_run
from vit_attn.spec.run import Knobs, static_of
from vit_attn.train.state import init_state

ROOT = Path(__file__).resolve().parent.parent
NO_RUN = ("__init__.py", "common.py", "finetune_gated.py", "grid.py", "imagenet.py", "scales.py")  # finetune_gated needs one
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.name not in NO_RUN)
SMOKE = [ROOT / "configs" / "smoke" / f"{name}.py" for name in ("vit_i1k", "vit_i21k", "vit_s16_i1k", "vit_s16_quant")]
SWEEPS = sorted(path for path in (ROOT / "configs" / "sweeps").glob("*.py") if path.name != "__init__.py")


def shapes(spec):
    number = jax.ShapeDtypeStruct((), jnp.float32)
    knobs = Knobs(Numbers(*(number for _ in Numbers._fields)), number, number, jax.ShapeDtypeStruct((), jnp.uint32))
    return jax.eval_shape(partial(init_state, static_of(spec)), knobs).params


@pytest.mark.parametrize("path", CONFIGS + SMOKE, ids=lambda path: path.name)
def test_config(path):
    assert path.read_text().startswith('"""')
    spec = load_run(str(path), {})
    assert shapes(spec)["head"]["kernel"].shape == (spec.model.width, spec.model.num_classes)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_sweep(path):
    grid = load_grid(str(path), {})
    assert len({member.name for member in grid.members}) == len(grid.members) > 1


PER_SEED = {  # members a seed: of the papers' grids at (paper, other) scale
    "fig1_scaling": (10, 10),
    "fig2_alpha": (216, 108),
    "fig3_qknorm": (60, 60),
    "fig4_gate": (60, 60),
    "table7_vit": (16, 16),
    "table8_gamma_zeta": (13, 13),
    "table10_lowbit": (3, 3),
    "fig6_gamma_length": (21, 21),
    "fig7_pi_init": (9, 9),
    "alpha_outliers": (48, 48),
    "outlier_methods": (14, 14),
}


@pytest.mark.parametrize("scale", ["paper", "small", "tiny"])
@pytest.mark.parametrize("name", PER_SEED)
def test_grids_of_the_papers(name, scale):
    grid = load_grid(f"configs/sweeps/{name}.py:scale={scale},seeds=2", {})
    assert len(grid.members) == 2 * PER_SEED[name][scale != "paper"]
    assert {member.spec.seed for member in grid.members} == {0, 1}
    assert all(len({static_of(m.spec) for m in pack.members}) == 1 for pack in grid.packs)
    names = {member.spec.data.name for member in grid.members}
    assert names <= (
        {"imagenet21k", "imagenet2012"} if scale == "paper" else {"cifar10"} if scale == "small" else {"fashion_mnist_12k"}
    )


def test_three_lengths():
    """L of Figure 2's columns: 49, 196, 784 and with a CLS token one more on ImageNet; three others elsewhere."""
    for scale, lengths in (("paper", {49, 50, 196, 197, 784, 785}), ("small", {16, 64, 256}), ("tiny", {4, 16, 49})):
        members = load_grid(f"configs/sweeps/fig2_alpha.py:scale={scale}", {}).members
        assert {member.spec.model.length for member in members} == lengths


def test_a_scale_that_is_none():
    with pytest.raises(UserError, match="scale='large' must be one of paper, small, tiny"):
        load_grid("configs/sweeps/fig2_alpha.py:scale=large", {})
    with pytest.raises(UserError, match="seeds=0 must be at least 1"):
        load_grid("configs/sweeps/fig2_alpha.py:seeds=0", {})


def test_the_clip_is_the_same_multiple_of_one_over_the_length_at_every_scale():
    for scale, length in (("paper", 197), ("tiny", 49)):
        grid = load_grid(f"configs/sweeps/table8_gamma_zeta.py:scale={scale}", {})
        attention = grid.members[-1].spec.model.attention
        gamma = attention.gamma if scale == "paper" else -attention.gamma_per_length / length
        assert gamma * length == pytest.approx(-0.003 * 197)
        assert attention.zeta == 1.003


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


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ("vit_i1k.py", 92_897),
        ("vit_i21k.py", 103_608),
        ("vit_i21k.py:epochs=300", 1_036_078),
        ("vit_s16_i1k.py", 111_477),
        ("vit_s16_i1k.py:epochs=300", 371_588),
        ("vit_s16_quant.py", 750_684),
    ],
)
def test_steps_of_the_recipes(recipe, steps):
    """big_vision's numbers: round(epochs * images / batch)."""
    assert load_run(f"configs/{recipe}", {}).train.steps == steps


LEVELS = {  # mixup, layers, magnitude: as big_vision's tables give them for i21k and i1k; S/8 as S/16
    "Ti/16": ((0.0, 0, 0), (0.0, 2, 0)),
    "S/32": ((0.0, 0, 0), (0.2, 2, 15)),
    "S/16": ((0.0, 2, 0), (0.5, 2, 15)),
    "S/8": ((0.0, 2, 0), (0.5, 2, 15)),
    "B/32": ((0.2, 2, 10), (0.5, 2, 15)),
    "B/16": ((0.2, 2, 10), (0.5, 2, 15)),
    "L/16": ((0.5, 2, 15), (0.5, 2, 15)),
}


@pytest.mark.parametrize("variant", LEVELS)
def test_augmentation_by_size(variant):
    for recipe, wanted in zip(("vit_i21k", "vit_i1k"), LEVELS[variant], strict=True):
        data = load_run(f"configs/{recipe}.py:variant={variant}", {}).data
        assert (data.mixup, data.randaug_layers, data.randaug_magnitude) == wanted


@pytest.mark.parametrize("recipe", ["vit_i21k", "vit_i1k", "vit_s16_i1k", "vit_s16_quant"])
def test_recipes_take_the_same_arguments(recipe):
    spec = load_run(f"configs/{recipe}.py:variant=S/8,h=relu2,alpha=0.5,gate=gau,qk_norm=width,aug=strong1,seed=3", {})
    attention = spec.model.attention
    assert (attention.h, attention.alpha, attention.gate, attention.qk_norm) == ("relu2", 0.5, "gau", "width")
    assert (spec.model.length, spec.seed) == (784 + (spec.model.pool == "tok"), 3)
    assert (spec.data.mixup, spec.data.randaug_layers, spec.data.randaug_magnitude) == (0.5, 2, 20)


def test_what_the_recipes_are():
    i21k, i1k, simple, quant = (
        load_run(f"configs/{name}.py", {}) for name in ("vit_i21k", "vit_i1k", "vit_s16_i1k", "vit_s16_quant")
    )
    for spec, head_bias, pool, loss in ((i21k, -10.0, "gap", "sigmoid_xent"), (i1k, -6.9, "tok", "sigmoid_xent")):
        assert (spec.model.head_bias, spec.model.pool, spec.train.loss) == (head_bias, pool, loss)
        assert (spec.train.batch_images, spec.model.posemb, spec.model.variant) == (4096, "learn", "B/16")
    assert (i21k.model.rep_size, i1k.model.rep_size, simple.model.rep_size, quant.model.rep_size) == (False, True, True, False)
    assert (simple.model.posemb, simple.model.pool, simple.train.batch_images) == ("sincos2d", "gap", 1024)
    for spec in (i21k, i1k, simple):
        assert (spec.train.warmup_steps, spec.train.peak_lr, spec.train.weight_decay, spec.train.clip_norm) == (
            10_000,
            1e-3,
            1e-4,
            1,
        )
        assert spec.model.attention.qk_norm == "head"
    train = quant.train
    assert (train.batch_images, train.label_smoothing, train.weight_decay, train.clip_norm) == (
        512,
        0.1,
        pytest.approx(3e-5),
        None,
    )
    assert (train.floor * train.peak_lr, train.warmup_start * train.peak_lr) == (pytest.approx(1e-5), pytest.approx(1e-6))
