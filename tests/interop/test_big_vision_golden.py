"""big_vision's own numbers: logits, losses, and five training steps of its vit_s16_i1k recipe in small.

big_vision_golden.json was made on a CPU with jax 0.10.2 from big_vision's commit 0127fb6b337ee2a27bf4e54dea79cff176527356:

    python tests/interop/make_big_vision_golden.py PATH_TO_BIG_VISION
"""

import json
from pathlib import Path

import golden_inputs as inputs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.interop.flat import flattened
from vit_attn.models.vit import ViT
from vit_attn.ops.augment import mix
from vit_attn.spec.load import load_run
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of
from vit_attn.store.paths import nested
from vit_attn.train.health import healthy
from vit_attn.train.losses import LOSSES
from vit_attn.train.optimizer import adam
from vit_attn.train.saved import abstract_state
from vit_attn.train.state import State
from vit_attn.train.step import prepare, update

GOLDEN = json.loads(Path(__file__).with_name("big_vision_golden.json").read_text())
SIZES = {**inputs.SIZES, "image_size": inputs.SIDE, "num_classes": inputs.CLASSES}


def parameters_for(spec):
    leaves = jax.tree_util.tree_flatten_with_path(abstract_state(spec).params)[0]
    shapes = {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}
    return jax.tree.map(jnp.asarray, nested(inputs.parameters(shapes)))


@pytest.mark.parametrize("impl", ["dense", "blockwise"])
@pytest.mark.parametrize("case", inputs.CASES)
def test_logits_and_losses(case, impl):
    attention = {"h": "softmax", "qk_norm": "none", "impl": impl}
    spec = resolve({"model": {**SIZES, **inputs.CASES[case], "attention": attention}})
    images, classes = inputs.images_and_labels(0)
    params, numbers = parameters_for(spec), knobs_of(spec).attention
    logits, _ = jax.jit(ViT(spec.model).apply)({"params": params}, inputs.as_floats(images), numbers)
    golden, targets = GOLDEN["forward"][case], jax.nn.one_hot(classes, inputs.CLASSES)
    wanted = np.array(golden["logits"])
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    for name in inputs.LOSSES:
        assert float(LOSSES[name](logits, targets).mean()) == pytest.approx(golden[name], rel=1e-6)


def test_goldens_tell_the_cases_apart():
    logits = [np.array(golden["logits"]) for golden in GOLDEN["forward"].values()]
    assert len(logits) == 12
    assert min(np.abs(a - b).max() for i, a in enumerate(logits) for b in logits[:i]) > 0.1


def recipe():
    """configs/vit_s16_i1k.py as big_vision has it, small, without random augmentation but mixup."""
    data = {f"data.{key}": value for key, value in {"flip": False, "crop": "resize", "randaug_layers": 0}.items()}
    steps = {"epochs": None, "steps": inputs.TOTAL_STEPS, "warmup_steps": inputs.WARMUP_STEPS, "batch_images": inputs.BATCH}
    overrides = {**{f"model.{key}": value for key, value in SIZES.items()}, **data}
    return load_run(
        "configs/vit_s16_i1k.py:qk_norm=none", {**overrides, **{f"train.{key}": value for key, value in steps.items()}}
    )


def test_five_steps_of_the_recipe(monkeypatch):
    spec = recipe()
    knobs, params = knobs_of(spec), parameters_for(spec)
    state = State(params, adam(spec.train).init(params), jnp.int32(0), healthy())
    take = jax.jit(lambda state, examples: update(spec, state, knobs, examples))
    for step, golden in enumerate(GOLDEN["training"]):
        monkeypatch.setattr(mix, "mixed", lambda *_, share=golden["share"]: jnp.full((1, 1), share, jnp.float32))
        images, classes = inputs.images_and_labels(step)
        batch = {"image": images, "labels": classes[:, None], "epoch": np.zeros(len(images)), "index": np.arange(len(images))}
        batch = {name: jnp.asarray(x, jnp.uint8 if name == "image" else jnp.int32) for name, x in batch.items()}
        state, metrics = take(state, prepare(spec, batch, jnp.int32(step)))
        for theirs, ours in inputs.MEASURED.items():
            assert float(metrics[f"train/{ours}"]) == pytest.approx(golden[theirs], rel=1e-6), (step, theirs)
        found = inputs.projections(flattened(state.params))
        for name, theirs in zip(sorted(found), golden["projections"], strict=True):
            # A bias of all keys changes no softmax: its gradient is rounding alone, which Adam makes steps of.
            assert found[name] == pytest.approx(theirs, rel=0, abs=1e-3 if name.endswith("key/bias") else 1e-5), (step, name)
