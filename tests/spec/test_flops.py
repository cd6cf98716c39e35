"""FLOPs by formula against the products that jax itself traces: forward and gradients, every gate and pooling."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params
from trainer_runs import command, run_here

from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec import flops
from vit_attn.spec.flops import flops_line, flops_per_image, forward_flops, peak_flops
from vit_attn.spec.resolve import resolve
from vit_attn.store.run_dir import RunDir

NUMBERS = Numbers(alpha=1.0, pi_init=0.5)
SIZES = {"width": 15, "depth": 1, "mlp_dim": 17, "heads": 3, "patch": 5, "image_size": 15, "num_classes": 11}


def model_spec(gate="none", **model):
    attention = {"h": "relu", "gate": gate, "impl": "dense", **({"n_hid": 7} if gate == "mlp" else {})}
    return resolve({"model": {**SIZES, **model, "attention": attention}}).model


def products(jaxpr):
    """FLOPs of all dot_generals and convolutions, those of inner jaxprs included."""
    total = 0
    for equation in jaxpr.eqns:
        shapes = [getattr(x.aval, "shape", ()) for x in (*equation.invars, *equation.outvars)]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.params["dimension_numbers"].rhs_spec  # (features out, features in, space ...)
            total += 2 * math.prod(shapes[-1]) * math.prod(shapes[1][axis] for axis in kernel[1:])
        for inner in jaxprs_in_params(equation.params):
            total += products(inner)
    return total


def counted_an_image(spec):
    """(forward, forward and gradients of the parameters): what grows with the batch, not what is done once a step."""
    model, side = ViT(spec), spec.image_size
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), NUMBERS)["params"])
    forward = lambda params, images: model.apply({"params": params}, images, NUMBERS)[0].sum()

    def of(function, batch):
        images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
        return products(jax.make_jaxpr(function)(params, images).jaxpr)

    return [of(function, 3) - of(function, 2) for function in (forward, jax.value_and_grad(forward))]


def zeros_of_block_diagonals(spec):
    """Of gates whose heads see their own channels only, as one product with a matrix that is mostly zeros."""
    tokens, width, heads = spec.length, spec.width, spec.heads
    blocks = {"linear": width, "mlp": width * 7 + heads * 7}.get(spec.attention.gate, 0)
    return spec.depth * 2 * tokens * blocks * (heads - 1)


@pytest.mark.parametrize("pool", ["gap", "tok", "map"])
@pytest.mark.parametrize("gate", ["none", "gau", "linear", "mlp", "all_heads"])
def test_the_formula_is_what_is_traced(gate, pool):
    spec = model_spec(gate, pool=pool, rep_size=gate in ("none", "mlp"))
    forward, both = counted_an_image(spec)
    zeros = zeros_of_block_diagonals(spec)
    assert forward == forward_flops(spec) + zeros
    pixels = 2 * 9 * 75 * 15  # nobody wants the gradient of the image
    assert both == flops_per_image(spec) + 3 * zeros - pixels


def test_other_forms_do_not_count():
    """Normalisation, form, dropout, layer scale and position embedding have no products."""
    others = [
        model_spec(layer_scale=0.1, patch_norm="tokens", drop_path=0.1),
        resolve({"model": {**SIZES, "attention": {"h": "softmax", "qk_norm": "width", "impl": "blockwise"}}}).model,
    ]
    assert {flops_per_image(one) for one in others} == {flops_per_image(model_spec())}


@pytest.mark.parametrize(("variant", "giga"), [("Ti/16", 1.26), ("S/16", 4.61), ("B/16", 17.58), ("L/16", 61.60)])
def test_published_multiply_adds(variant, giga):
    """Of DeiT's and timm's tables, with a CLS token: two FLOPs each."""
    spec = resolve({"model": {"variant": variant, "pool": "tok"}}).model
    assert forward_flops(spec) / 2e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v4", 275),
        ("TPU v6 lite", 918),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA L400", None),
        ("cpu", None),
    ],
)
def test_peaks(kind, tera):
    assert peak_flops(kind) == (tera and tera * 1e12)


def test_a_run_says_its_share_of_the_peak(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(flops._PEAK_TFLOPS, "cpu", 0.01)
    assert run_here(*command(tmp_path / "run")) == 0
    printed, run_dir = capsys.readouterr().out, RunDir(tmp_path / "run")
    image = flops_per_image(run_dir.spec().model)
    assert flops_line(run_dir.spec().model, 16, 8, "cpu") in printed
    assert "the peak of 8 x cpu is 80 GFLOPs/s" in printed
    assert " | MFU " in printed
    for row in run_dir.metrics():
        assert row["speed/mfu"] == pytest.approx(row["speed/images_per_second"] * image / (8 * 1e10))
    assert f'"flops_per_image": {image}' in (tmp_path / "run" / "env.json").read_text()
    assert "memory per device: " in printed
