"""timm's own VisionTransformer beside ours, both ways. Skipped without torch and timm, which nothing else needs.

With timm 1.0.31 and torch 2.14.1 the largest difference of a logit, relative to the largest logit, was 2e-7 to 5e-7 with
timm's act_layer="gelu_tanh", and 6e-5 to 2e-4 with its default, the exact GELU.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import golden_inputs as inputs
import numpy as np
import pytest
from interop_runs import PLAIN, flat_of, interop, spec_of

from vit_attn.interop.new_run import save_run
from vit_attn.interop.run import load_run
from vit_attn.interop.timm import arguments
from vit_attn.store.run_dir import RunDir

pytestmark = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("timm")),
    reason="torch or timm is not installed (pip install timm, to compare with it)",
)
NORM = {"h": "softmax", "qk_norm": "head", "qk_norm_bias": True}
CASES = {  # ours, timm's
    "gap": ({"attention": PLAIN}, {}),
    "tok": ({"attention": PLAIN, "pool": "tok"}, {"class_token": True, "global_pool": "token"}),
    "qk-norm": ({"attention": NORM, "layer_scale": 0.1}, {"qk_norm": True, "init_values": 0.1}),
    "patch norm": ({"attention": PLAIN, "patch_norm": "patches"}, {"embed_norm_layer": "layernorm"}),
}


def timm_logits(command, folder, images, **settings):
    sizes = {"img_size": inputs.SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    plain = {"num_classes": inputs.CLASSES, "global_pool": "avg", "fc_norm": False, "class_token": False}
    np.save(folder / "images.npy", inputs.as_floats(images))
    files = [folder / name for name in ("x.safetensors", "images.npy", "logits.npy")]
    words = [sys.executable, Path(__file__).with_name("timm_logits.py"), command, *files]
    done = subprocess.run([*words, json.dumps({**sizes, **plain, **settings})], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "logits.npy")


def relative(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", CASES)
def test_logits_of_an_export(name, tmp_path):
    spec, (images, _) = spec_of(**CASES[name][0]), inputs.images_and_labels(1)
    theirs = {key: value for key, value in arguments(spec.model).items() if key != "act_layer"}
    save_run(RunDir(tmp_path / "run"), spec, flat_of(spec), "a test")
    assert interop("export", tmp_path / "run", "--to", tmp_path / "x.safetensors") == 0
    ours = load_run(tmp_path / "run").predict(images)
    assert relative(timm_logits("load", tmp_path, images, act_layer="gelu_tanh", **theirs), ours) < 5e-6
    assert relative(timm_logits("load", tmp_path, images, **theirs), ours) < 1e-2


@pytest.mark.parametrize("name", CASES)
def test_logits_of_an_import(name, tmp_path):
    images, _ = inputs.images_and_labels(1)
    wanted = timm_logits("make", tmp_path, images, act_layer="gelu_tanh", **CASES[name][1])
    assert interop("import", "--from", tmp_path / "x.safetensors", "--workdir", tmp_path / "run") == 0
    assert relative(load_run(tmp_path / "run").predict(images), wanted) < 5e-6
