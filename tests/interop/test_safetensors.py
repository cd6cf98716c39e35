"""timm's names in .safetensors: round trips bit for bit, and the logits that timm's formulas give in numpy."""

import golden_inputs as inputs
import numpy as np
import pytest
import timm_oracle
from interop_runs import PLAIN, flat_of, interop, refused, same_arrays, spec_of
from safetensors.numpy import load_file, save_file
from trainer_runs import saved_arrays

from vit_attn.interop.new_run import save_run
from vit_attn.interop.run import load_run
from vit_attn.store.run_dir import RunDir

NORM = {"h": "softmax", "qk_norm": "head"}
MODELS = {
    "gap": {"attention": PLAIN},
    "tok": {"attention": PLAIN, "pool": "tok"},
    "tok, fixed positions": {"attention": PLAIN, "pool": "tok", "posemb": "sincos2d"},
    "norms": {"attention": {**NORM, "qk_norm_bias": True}, "patch_norm": "patches", "layer_scale": 0.1},
    "no bias": {"attention": NORM, "pool": "tok"},
    "no scale": {"attention": {**NORM, "qk_norm_scale": False}},
}


def run_of(path, **settings):
    """A run with parameters; (its RunSpec, the parameters by path)."""
    spec = spec_of(**settings)
    flat = flat_of(spec)
    save_run(RunDir(path), spec, flat, "a test")
    return spec, flat


def settings_of(spec):
    """A --config of this model, as flags."""
    model = {**inputs.SIZES, "image_size": inputs.SIDE, "num_classes": inputs.CLASSES}
    model |= {key: getattr(spec.model, key) for key in ("pool", "posemb", "patch_norm", "layer_scale")}
    model |= {f"attention.{key}": getattr(spec.model.attention, key) for key in ("qk_norm", "qk_norm_scale", "qk_norm_bias")}
    return ["--config", "configs/quickstart.py", *(f"--config.model.{key}={value}" for key, value in model.items())]


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_and_logits(name, tmp_path):
    spec, flat = run_of(tmp_path / "run", **MODELS[name])
    assert interop("export", tmp_path / "run", "--to", tmp_path / "x.safetensors") == 0
    arrays = load_file(tmp_path / "x.safetensors")
    images, _ = inputs.images_and_labels(1)
    wanted = timm_oracle.forward(arrays, inputs.as_floats(images), heads=2)
    np.testing.assert_allclose(load_run(tmp_path / "run").predict(images), wanted, rtol=0, atol=3e-6 * np.abs(wanted).max())

    assert interop("import", "--from", tmp_path / "x.safetensors", "--workdir", tmp_path / "again", *heads(spec)) == 0
    assert interop("export", tmp_path / "again", "--to", tmp_path / "y.safetensors") == 0
    same_arrays(arrays, load_file(tmp_path / "y.safetensors"))

    words = ["--workdir", tmp_path / "config", *settings_of(spec)]
    assert interop("import", "--from", tmp_path / "x.safetensors", *words) == 0
    saved = saved_arrays(tmp_path / "config")
    same_arrays(flat, {key.removeprefix("/params/"): value for key, value in saved.items() if key.startswith("/params/")})


def heads(spec):
    """No shape tells them, unless there is a qk-layernorm; a width of 32 is the mu size, which has 2."""
    return [] if spec.model.width == 32 else [f"--config.model.heads={spec.model.heads}"]


def test_heads_of_other_widths(tmp_path, capsys):
    """Three heads of 12: asked for where nothing tells them."""
    spec, _ = run_of(tmp_path / "run", attention=PLAIN, width=36, heads=3, mlp_dim=22)
    file = tmp_path / "x.safetensors"
    assert interop("export", tmp_path / "run", "--to", file) == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("embed_dim=36, depth=2, num_heads=3, mlp_ratio=0.61", "act_layer='gelu_tanh'"))
    line = refused(capsys, "import", "--from", file, "--workdir", tmp_path / "again")
    assert "width of 36" in line
    assert "--config.model.heads=N" in line
    assert interop("import", "--from", file, "--workdir", tmp_path / "again", *heads(spec)) == 0
    assert 'act_layer="gelu_tanh"' in capsys.readouterr().out
    images, _ = inputs.images_and_labels(1)
    wanted = timm_oracle.forward(load_file(file), inputs.as_floats(images), heads=3)
    np.testing.assert_allclose(load_run(tmp_path / "again").predict(images), wanted, rtol=0, atol=3e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("of_cls", [True, False])
def test_position_of_the_cls_token(of_cls, tmp_path):
    """timm's models have one, DeiT III has none; here it is part of the token."""
    run_of(tmp_path / "run", attention=PLAIN, pool="tok")
    assert interop("export", tmp_path / "run", "--to", tmp_path / "x.safetensors") == 0
    arrays = load_file(tmp_path / "x.safetensors")
    if of_cls:
        arrays["pos_embed"][:, 0] = np.random.default_rng(3).normal(size=32)
    else:
        arrays["pos_embed"] = arrays["pos_embed"][:, 1:]
    save_file(arrays, tmp_path / "y.safetensors")
    assert interop("import", "--from", tmp_path / "y.safetensors", "--workdir", tmp_path / "again") == 0
    images, _ = inputs.images_and_labels(1)
    wanted = timm_oracle.forward(arrays, inputs.as_floats(images), heads=2)
    np.testing.assert_allclose(load_run(tmp_path / "again").predict(images), wanted, rtol=0, atol=3e-6 * np.abs(wanted).max())


def test_exact_gelu_is_another_function(tmp_path):
    """What timm's default act_layer makes of it: not equal, and not far."""
    run_of(tmp_path / "run", attention=PLAIN)
    assert interop("export", tmp_path / "run", "--to", tmp_path / "x.safetensors") == 0
    images, _ = inputs.images_and_labels(1)
    arrays, pixels = load_file(tmp_path / "x.safetensors"), inputs.as_floats(images)
    near, exact = (timm_oracle.forward(arrays, pixels, 2, gelu) for gelu in (timm_oracle.tanh_gelu, timm_oracle.EXACT))
    assert 1e-6 < np.abs(near - exact).max() / np.abs(exact).max() < 1e-2


REFUSED = {
    "h": ({"attention": {"h": "relu", "qk_norm": "none"}}, ["h='relu'"]),
    "gate": ({"attention": {**PLAIN, "gate": "mlp"}}, ["gate='mlp'"]),
    "norm over the width": ({"attention": {"qk_norm": "width"}}, ["qk_norm='width'"]),
    "map, rep": ({"attention": PLAIN, "pool": "map", "rep_size": True}, ["pool='map'", "rep_size=True"]),
    "norm of tokens": ({"attention": PLAIN, "patch_norm": "tokens"}, ["patch_norm='tokens'"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_timm_does_not_compute(name, tmp_path, capsys):
    settings, words = REFUSED[name]
    run_of(tmp_path / "run", **settings)
    line = refused(capsys, "export", tmp_path / "run", "--to", tmp_path / "x.safetensors")
    assert all(word in line for word in [*words, ".stablehlo"]), line
    assert not (tmp_path / "x.safetensors").exists()


STRANGE = {
    "missing": (lambda a: a.pop("blocks.1.mlp.fc2.bias"), ["lacks blocks.1.mlp.fc2.bias"]),
    "a block": (lambda a: [a.pop(name) for name in list(a) if "blocks.0." in name], ["lacks blocks.0.attn.proj.bias"]),
    "norm behind the mean": (
        lambda a: a.update({f"fc_norm.{kind}": a.pop(f"norm.{kind}") for kind in ("weight", "bias")}),
        ["lacks norm.bias, norm.weight", "fc_norm=False"],
    ),
    "registers": (lambda a: a.update({"reg_token": np.zeros((1, 4, 32), np.float32)}), ["reg_token", "register tokens"]),
    "width": (lambda a: a.update({"blocks.0.attn.qkv.weight": np.zeros((96, 31), np.float32)}), ["[96, 31]", "[96, 32]"]),
    "depth": (lambda a: a.update({"blocks.1.norm1.weight": np.zeros(31, np.float32)}), ["LayerNorm_0/scale [31] for [32]"]),
    "no ViT": (lambda a: a.pop("patch_embed.proj.weight"), ["no ViT of timm's"]),
}


@pytest.mark.parametrize("name", STRANGE)
def test_files_that_do_not_fit(name, tmp_path, capsys):
    change, words = STRANGE[name]
    run_of(tmp_path / "run", attention=PLAIN)
    assert interop("export", tmp_path / "run", "--to", tmp_path / "x.safetensors") == 0
    capsys.readouterr()
    arrays = load_file(tmp_path / "x.safetensors")
    change(arrays)
    save_file(arrays, tmp_path / "y.safetensors")
    line = refused(capsys, "import", "--from", tmp_path / "y.safetensors", "--workdir", tmp_path / "again")
    assert all(word in line for word in words), line
    assert not (tmp_path / "again").exists()


def test_big_vision_in_safetensors(tmp_path):
    """--format: whose names, where the suffix would say something else."""
    _, flat = run_of(tmp_path / "run", attention=PLAIN)
    words = ["--format", "big_vision"]
    assert interop("export", tmp_path / "run", "--to", tmp_path / "x.safetensors", *words) == 0
    same_arrays(load_file(tmp_path / "x.safetensors"), {f"params/{name}": value for name, value in flat.items()})
    assert interop("import", "--from", tmp_path / "x.safetensors", "--workdir", tmp_path / "again", *words) == 0
