"""big_vision's and AugReg's .npz: round trips bit for bit, logits of big_vision's own, old names written out by hand."""

import json
from pathlib import Path

import golden_inputs as inputs
import ml_dtypes
import numpy as np
import pytest
from interop_runs import PLAIN, flat_of, interop, refused, same_arrays, spec_of
from trainer_runs import run_here, saved_arrays, saved_steps

from vit_attn.interop.big_vision import from_big_vision
from vit_attn.interop.new_run import save_run
from vit_attn.interop.run import load_run
from vit_attn.store.paths import nested
from vit_attn.store.run_dir import RunDir

GOLDEN = json.loads(Path(__file__).with_name("big_vision_golden.json").read_text())["forward"]


def write(path, flat, prefix="params/"):
    np.savez(path, **{f"{prefix}{name}": value for name, value in flat.items()})
    return path


@pytest.mark.parametrize("case", ["gap-learn-plain", "gap-sincos2d-rep", "tok-learn-rep", "map-learn-plain"])
def test_round_trip_and_logits(case, tmp_path):
    file = write(tmp_path / "theirs.npz", flat_of(spec_of(**inputs.CASES[case])))
    side = [f"--config.model.image_size={inputs.SIDE}"] if "sincos2d" in case else []  # no array has this size
    assert interop("import", "--from", file, "--workdir", tmp_path / "run", *side) == 0
    assert RunDir(tmp_path / "run").spec() == spec_of(**inputs.CASES[case])
    assert interop("export", tmp_path / "run", "--to", tmp_path / "ours.npz") == 0
    with np.load(file) as theirs, np.load(tmp_path / "ours.npz") as ours:
        same_arrays(dict(theirs), dict(ours))
    images, _ = inputs.images_and_labels(0)
    wanted = np.array(GOLDEN[case]["logits"])
    for taken in (images, inputs.as_floats(images)):  # bytes, and numbers in [-1, 1]
        got = load_run(tmp_path / "run").predict(taken)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


def old_names(flat):
    """As the releases of ViT and AugReg name them: each kind of submodule takes the next number."""
    old = {"LayerNorm_1": "LayerNorm_2", "MlpBlock_0": "MlpBlock_3", "MultiHeadDotProductAttention_0": None}
    old["MultiHeadDotProductAttention_0"] = "MultiHeadDotProductAttention_1"
    return {"/".join(old.get(part, part) for part in name.split("/")): value for name, value in flat.items()}


@pytest.mark.parametrize("place", ["Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding"])
def test_augreg_release(place, tmp_path):
    """No prefix, submodules numbered through, positions in the encoder: one more than patches, the first is CLS's."""
    wanted = flat_of(spec_of(pool="tok"))
    old = old_names(wanted)
    assert "Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias" in old
    positions, cls = old.pop("pos_embedding"), np.float32(0.5)
    old[place] = np.concatenate([np.full((1, 1, 32), cls), positions], axis=1)
    old["cls"] = np.round(64 * wanted["cls"]) / 64 - cls  # so that the sum is exact
    file = write(tmp_path / "S_16.npz", old, "")
    assert interop("import", "--from", file, "--workdir", tmp_path / "run") == 0
    found = {name.removeprefix("/params/"): x for name, x in saved_arrays(tmp_path / "run").items() if "/params/" in name}
    same_arrays(found, {**wanted, "cls": np.round(64 * wanted["cls"]) / 64})


def test_layouts_of_other_times():
    """Optimizer states of flax's old optimizers, blocks stacked by a scan, a pooling head that is no module of its own."""
    wanted = flat_of(spec_of(pool="map"))
    scanned, inlined = dict(wanted), {}
    for name in [name for name in wanted if "encoderblock_0" in name]:
        other = name.replace("encoderblock_0", "encoderblock_1")
        scanned[name.replace("encoderblock_0", "encoderblock")] = np.stack([scanned.pop(name), scanned.pop(other)])
    for name, value in wanted.items():
        inlined[name.removeprefix("MAPHead_0/")] = value
    targets = {f"opt/target/{name}": value for name, value in wanted.items()}
    for flat in (scanned, inlined, {**targets, "opt/state/step": np.zeros(3, np.float32)}):
        same_arrays(dict(sorted(from_big_vision(flat, "x").items())), dict(sorted(wanted.items())))


def test_half_precision_becomes_float32(tmp_path):
    """numpy's files know no bfloat16: it is two bytes of anything."""
    flat = flat_of(spec_of())
    wanted = {name: value.astype(ml_dtypes.bfloat16) for name, value in flat.items()}
    file = write(tmp_path / "half.npz", wanted)
    with np.load(file) as read:
        assert read["params/head/bias"].dtype == np.dtype("V2")
    assert interop("import", "--from", file, "--workdir", tmp_path / "run") == 0
    assert interop("export", tmp_path / "run", "--to", tmp_path / "ours.npz") == 0
    with np.load(tmp_path / "ours.npz") as ours:
        same_arrays(dict(ours), {f"params/{name}": value.astype(np.float32) for name, value in wanted.items()})


def test_config_decides_where_it_is_given(tmp_path):
    """The recipe's settings, the file's numbers."""
    file = write(tmp_path / "theirs.npz", flat_of(spec_of(pool="tok")))
    config = "configs/quickstart.py:h=relu"
    settings = {**inputs.SIZES, "image_size": inputs.SIDE, "num_classes": inputs.CLASSES, "pool": "tok", "posemb": "learn"}
    model = [f"--config.model.{key}={value}" for key, value in {**settings, "attention.qk_norm": "none"}.items()]
    model.append("--config.train.peak_lr=0.02")
    assert interop("import", "--from", file, "--workdir", tmp_path / "run", "--config", config, *model) == 0
    spec = RunDir(tmp_path / "run").spec()
    assert (spec.model.attention.h, spec.model.attention.alpha, spec.train.peak_lr) == ("relu", 1.0, 0.02)
    run = load_run(tmp_path / "run")
    assert run.spec == spec
    np.testing.assert_array_equal(run.params["cls"], flat_of(spec_of(pool="tok"))["cls"])


def test_trains_on_from_the_import(tmp_path):
    """The trainer resumes at step 0 with the file's parameters: with a rate of 0 they are what it saves."""
    flat = flat_of(spec_of(num_classes=10))
    file = write(tmp_path / "theirs.npz", flat)
    small = {"batch_images": 16, "steps": 2, "peak_lr": 0.0, "weight_decay": 0.0}
    settings = {f"train.{key}": value for key, value in small.items()}
    settings |= {"eval.split": "validation[:16]", "eval.batch_images": 16, "loop.log_steps": 1}
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    assert interop("import", "--from", file, "--workdir", tmp_path / "run", *words) == 0
    assert saved_steps(tmp_path / "run") == [0]
    assert run_here("--run", tmp_path / "run") == 0
    saved = saved_arrays(tmp_path / "run", 2)
    same_arrays({name: saved[f"/params/{name}"] for name in flat}, flat)


MISTAKES = {
    "missing": (lambda flat: flat.pop("Transformer/encoder_norm/scale"), ["missing: Transformer/encoder_norm/scale"]),
    "extra": (lambda flat: flat.update({"reg/x": np.zeros(3, np.float32)}), ["extra: reg/x"]),
    "shape": (lambda flat: flat.update({"head/bias": np.zeros(6, np.float32)}), ["of another shape: head/bias [6] for [7]"]),
    "no ViT": (lambda flat: flat.pop("embedding/kernel"), ["embedding/kernel"]),
    "float64": (lambda flat: flat.update({"head/bias": np.zeros(7)}), ["params/head/bias", "float64"]),
    "positions": (
        lambda flat: flat.update({"pos_embedding": np.zeros((1, 11, 32), np.float32)}),
        ["11 positions", "square"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_files_that_do_not_fit(name, tmp_path, capsys):
    flat = flat_of(spec_of())
    MISTAKES[name][0](flat)
    line = refused(capsys, "import", "--from", write(tmp_path / "x.npz", flat), "--workdir", tmp_path / "run")
    assert all(words in line for words in MISTAKES[name][1]), line
    assert not (tmp_path / "run").exists()


def test_all_lists_in_one_line(tmp_path, capsys):
    flat = flat_of(spec_of(rep_size=True))
    del flat["head/bias"]
    config = ["--config", "configs/vit_s16_i1k.py:qk_norm=none", "--config.model.rep_size=False", "--config.model.depth=3"]
    file = write(tmp_path / "x.npz", flat)
    line = refused(capsys, "import", "--from", file, "--workdir", tmp_path / "run", *config)
    assert "missing: head/bias, Transformer/encoderblock_2/LayerNorm_0/bias" in line
    assert "extra: pos_embedding, pre_logits/bias, pre_logits/kernel" in line
    assert "embedding/kernel [8, 8, 3, 32] for [16, 16, 3, 384]" in line
    assert "more" in line


def test_files_that_are_none(tmp_path, capsys):
    words = ["--workdir", tmp_path / "run"]
    assert "no such file" in refused(capsys, "import", "--from", tmp_path / "x.npz", *words)
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 cut short")
    assert "cannot be read as a .npz" in refused(capsys, "import", "--from", tmp_path / "x.npz", *words)
    np.savez(tmp_path / "pickled.npz", **{"params/embedding/kernel": np.array([{}], dtype=object)})
    assert "cannot be read as a .npz" in refused(capsys, "import", "--from", tmp_path / "pickled.npz", *words)
    assert ".npz or .safetensors" in refused(capsys, "import", "--from", tmp_path / "x.bin", *words)
    assert "timm" in refused(capsys, "import", "--from", tmp_path / "x.npz", *words, "--format", "tim")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(tmp_path, capsys):
    file = write(tmp_path / "x.npz", flat_of(spec_of()))
    assert interop("import", "--from", file, "--workdir", tmp_path / "run") == 0
    before = saved_arrays(tmp_path / "run")
    assert "holds a run already" in refused(capsys, "import", "--from", file, "--workdir", tmp_path / "run")
    same_arrays(before, saved_arrays(tmp_path / "run"))


@pytest.mark.parametrize(
    ("attention", "model", "words"),
    [
        ({"h": "relu", "qk_norm": "none"}, {}, ["h='relu'"]),
        ({"qk_norm": "head", "gate": "linear"}, {"layer_scale": 0.1}, ["qk_norm='head'", "gate='linear'", "layer_scale=0.1"]),
        (PLAIN, {"patch_norm": "patches"}, ["patch_norm='patches'"]),
    ],
)
def test_what_big_vision_does_not_compute(attention, model, words, tmp_path, capsys):
    spec = spec_of(attention, **model)
    save_run(RunDir(tmp_path / "run"), spec, flat_of(spec), "a test")
    line = refused(capsys, "export", tmp_path / "run", "--to", tmp_path / "x.npz")
    assert all(word in line for word in [*words, ".stablehlo"]), line
    assert not (tmp_path / "x.npz").exists()


def test_nested_is_the_tree():
    assert nested({"a/b": 1, "a/c/d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
