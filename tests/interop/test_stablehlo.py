"""The program in a file, run by a process that has jax and nothing of ours."""

import subprocess
import sys

import golden_inputs as inputs
import numpy as np
import pytest
from interop_runs import flat_of, interop, spec_of

from vit_attn.interop.new_run import save_run
from vit_attn.interop.run import load_run
from vit_attn.store.run_dir import RunDir

VISITOR = """
import importlib.util, sys
assert importlib.util.find_spec("vit_attn") is None and importlib.util.find_spec("configs") is None
import numpy as np
from jax import export
model = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
assert set(model.platforms) == {"cpu", "cuda", "tpu"}, model.platforms
with np.load("images.npz") as images:
    np.savez("logits.npz", **{name: model.call(x) for name, x in images.items()})
assert not [name for name in sys.modules if name.partition(".")[0] in ("vit_attn", "flax")]
"""
MODELS = {
    "relu": {"attention": {"h": "relu", "alpha": 0.8, "qk_norm": "head", "gate": "linear", "impl": "pallas"}},
    "tok, float32": {"attention": {"h": "clipped_softmax", "qk_norm": "width", "impl": "blockwise"}, "pool": "tok"},
    "map": {"attention": {"h": "softmax", "qk_norm": "none"}, "pool": "map", "posemb": "sincos2d", "rep_size": True},
}


@pytest.mark.parametrize("name", MODELS)
def test_in_a_process_without_us(name, tmp_path):
    spec = spec_of(**MODELS[name])
    save_run(RunDir(tmp_path / "run"), spec, flat_of(spec), "a test")
    taken = ["--images", "float32"] if "float32" in name else []
    assert interop("export", tmp_path / "run", "--to", tmp_path / "model.stablehlo", *taken) == 0
    images, _ = inputs.images_and_labels(3)
    batches = {str(size): inputs.as_floats(images[:size]) if taken else images[:size] for size in (5, 1)}
    np.savez(tmp_path / "images.npz", **batches)
    words = [sys.executable, "-I", "-c", VISITOR]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    run = load_run(tmp_path / "run")
    with np.load(tmp_path / "logits.npz") as logits:
        for size, batch in batches.items():
            wanted = run.predict(batch)
            assert logits[size].shape == wanted.shape
            np.testing.assert_allclose(logits[size], wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
