"""The network in integers: its logits beside the simulated ones, its files, and its program without us."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_runs import command, run_here

from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.quant.calibrate import Network, calibrate, roundings
from vit_attn.quant.int8 import float_kernels, load_int8
from vit_attn.quant.names import names_of
from vit_attn.quant.network import Rounded, integer_network
from vit_attn.quant.weights import rounded, weight_grids
from vit_attn.quantize import main
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.quant import QuantSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of
from vit_attn.store.paths import paths_of
from vit_attn.store.run_dir import RunDir
from vit_attn.train.state import init_state

MODELS = {
    "softmax": ({"h": "softmax", "qk_norm": "none"}, {}, {}),
    "gate, folded, by channel": (
        {"h": "relu", "qk_norm": "head", "gate": "linear", "alpha_learned": "head"},
        {"pool": "tok", "rep_size": True},
        {"fold_length": True, "per_channel": True},
    ),
    "kernel": ({"h": "softmax", "qk_norm": "none"}, {"width": 128, "depth": 2}, {}),
    "kernel, relu": ({"h": "relu", "qk_norm": "head"}, {"width": 128, "depth": 2}, {"per_channel": True}),
    "map, excluded": ({"h": "relu", "qk_norm": "none"}, {"pool": "map"}, {"exclude": ("encoderblock_0/attention/*", "head/*")}),
}
VISITOR = """
import importlib.util, sys
assert importlib.util.find_spec("vit_attn") is None
import numpy as np
from jax import export
model = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
np.save("logits.npy", model.call(np.load("images.npy")))
assert not [name for name in sys.modules if name.partition(".")[0] in ("vit_attn", "flax")]
"""


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_simulated_ones(name):
    """Within two steps of the last grid: an activation that lies half-way may be rounded to the other neighbour."""
    attention, model, settings = MODELS[name]
    model = {"variant": "mu/16", "image_size": 32, "num_classes": 7, "attention": attention, **model}
    spec, quant = resolve({"model": model}), QuantSpec(**settings)
    numbers, params = knobs_of(spec).attention, init_state(spec, knobs_of(spec)).params
    params = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    names = names_of(spec.model, params, quant)
    weights = weight_grids(params, names, quant)
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    low_bit = rounded(params, weights)
    learned = calibrate(Network(spec.model, low_bit, numbers), names, quant, "running_min_max", [images])
    pixels = normalize(jnp.asarray(images))
    simulated, _ = ViT(spec.model).apply({"params": low_bit, "points": roundings(learned)}, pixels, numbers)
    found = Rounded(weights, {path: learned[path].grid for path, point in names.points.items() if names.on(point)})
    network = integer_network(spec.model, params, names, found, numbers, fused=name.startswith("kernel"))
    assert any("attend" in path for path in paths_of(network.points)) == name.startswith("kernel")
    logits = network(spec.model, pixels, numbers)
    step = float(learned["class_logits"].grid.scale)
    assert float(jnp.abs(logits - simulated).max()) <= 2.01 * step
    assert float((logits.argmax(-1) == simulated.argmax(-1)).mean()) >= 0.9
    types = {path: x.dtype for path, x in paths_of(network.params).items()}
    assert float_kernels(network) == [path for path in types if path.endswith("kernel") and types[path] == jnp.float32]
    excluded = {"encoderblock_0/attention", "head"} if settings.get("exclude") else set()
    for path, short in names.weights.items():
        if path.endswith("kernel") and "MAPHead_0/MultiHead" not in path:
            away = any(short.startswith(one) for one in excluded)
            assert types[path] == (jnp.float32 if away else jnp.int8), path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run and its INT8 member."""
    path = tmp_path_factory.mktemp("int8") / "run"
    settings = {"train__steps": 60, "train__batch_images": 32, "eval__split": "validation[:500]", "eval__batch_images": 104}
    assert run_here(*command(path, eval__steps=60, loop__ckpt_steps=60, loop__log_steps=20, **settings)) == 0
    assert quantize("--run", path, "--config", "configs/quant/w8a8.py:batches=2,repeats=1", "--export") == 0
    return path


def quantize(*argv):
    return exit_code_of(lambda: main([str(word) for word in argv]))


def test_accuracy_and_bytes(run):
    told = json.loads((run / "quant/w8a8/int8/ranges.json").read_text())
    assert told["int8"]["images"] == 500
    assert told["int8"]["accuracy"] > 0.3
    assert abs(told["int8"]["accuracy"] - told["simulated"]["accuracy"]) <= 0.002
    results = json.loads((run / "quant/w8a8/results.json").read_text())
    assert results["int8"] == told["int8"]
    assert results["metrics"]["quant/w8a8/int8/accuracy"] == told["int8"]["accuracy"]
    (row,) = map(json.loads, (run / "quant/w8a8/int8/metrics.jsonl").read_text().splitlines())
    assert row == {"step": results["step"], **{k: v for k, v in results["metrics"].items() if k.startswith("quant/w8a8/int8/")}}
    assert list((run / "quant/w8a8/int8").glob("events.out.*"))
    size = (run / "quant/w8a8/int8/parameters.safetensors").stat().st_size
    assert told["parameter_bytes"]["int8"] <= size
    assert told["float_kernels"] == []
    assert told["parameter_bytes"]["int8"] < 0.27 * told["parameter_bytes"]["float32"]


def test_once(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in (run / "quant/w8a8").rglob("*")}
    assert quantize("--run", run, "--config", "configs/quant/w8a8.py:batches=2,repeats=1", "--export") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (run / "quant/w8a8").rglob("*")} == before


def test_program_without_us(run, tmp_path):
    """The same logits as those of the files, loaded again."""
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "model.stablehlo").write_bytes((run / "quant/w8a8/int8/model.stablehlo").read_bytes())
    words = [sys.executable, "-I", "-c", VISITOR]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    spec = RunDir(run).spec()
    network = load_int8(run / "quant/w8a8/int8", spec)
    wanted = network(spec.model, normalize(jnp.asarray(images)), knobs_of(spec).attention)
    step = json.loads((run / "quant/w8a8/int8/ranges.json").read_text())["activations"]["head/output"]["scale"]
    assert np.abs(np.load(tmp_path / "logits.npy") - np.asarray(wanted)).max() <= 2.01 * step


def test_more_bits_than_int8_has(run, capsys):
    config = ("--config", "configs/quant/w8a8.py", "--config.activation_bits=9")
    assert quantize("--run", run, *config, "--int8", "--workdir", run / "other") == 2
    assert "config.activation_bits=9: INT8 holds at most 8 bits" in capsys.readouterr().err
    assert not (run / "other").exists()
