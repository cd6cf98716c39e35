"""Each labelled image counts once: means over padded batches equal those of a plain float64 loop over the images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.evals.classification import metrics, outputs
from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.parallel.mesh import make_mesh
from vit_attn.parallel.rules import batched
from vit_attn.spec.mesh import MeshSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import Knobs

KNOBS = Knobs(Numbers(alpha=0.5), 0.1, 0.0, 0)
N, CLASSES = 13, 11
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
ONE = RNG.integers(0, CLASSES, (N, 1)).astype(np.int32)
SEVERAL = np.full((N, 3), -1, np.int32)  # 0 to 3 labels an image
for row, count in enumerate(RNG.integers(0, 4, N)):
    SEVERAL[row, :count] = RNG.choice(CLASSES, count, replace=False)


def spec_of(loss):
    model = {"variant": "mu/4", "image_size": 8, "num_classes": CLASSES, "attention": {"h": "sigmoid"}}
    return resolve({"model": model, "train": {"loss": loss}})


def params_of(spec):
    params = ViT(spec.model).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), KNOBS.attention)["params"]
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    return params


def by_loop(spec, params, labels):
    pixels = jnp.asarray(IMAGES / 127.5 - 1, "float32")
    logits = np.asarray(ViT(spec.model).apply({"params": params}, pixels, KNOBS.attention)[0], float)
    rows = []
    for z, mine in zip(logits, labels, strict=True):
        mine = {int(label) for label in mine if label >= 0}
        if not mine:
            continue
        best = np.argsort(-z)
        if spec.train.loss == "softmax_xent":
            loss = sum(np.log(np.exp(z).sum()) - z[c] for c in mine)
        else:
            loss = sum(np.log1p(np.exp(-z[c] if c in mine else z[c])) for c in range(CLASSES))
        rows.append((best[0] in mine, bool(mine & set(best[:5].tolist())), loss))
    accuracy, top5, loss = np.mean(np.asarray(rows, float), axis=0)
    return {"real/accuracy": accuracy, "real/top5": top5, "real/loss": loss, "real/images": len(rows)}


def padded(start, size, labels):
    real = min(size, N - start)
    pad = [(0, size - real)]
    return {
        "image": np.pad(IMAGES[start : start + real], [*pad, (0, 0), (0, 0), (0, 0)]),
        "labels": np.pad(labels[start : start + real], [*pad, (0, 0)], constant_values=-1),
        "mask": np.pad(np.ones(real, np.float32), pad),
    }


@pytest.mark.parametrize("labels", [ONE, SEVERAL], ids=["one label", "several"])
@pytest.mark.parametrize("loss", ["softmax_xent", "sigmoid_xent"])
def test_any_batch_size_gives_the_plain_mean(loss, labels):
    spec = spec_of(loss)
    params = params_of(spec)
    wanted = by_loop(spec, params, labels)
    assert wanted["real/images"] == (labels >= 0).any(axis=1).sum()
    for size in (1, 4, 13, 16):
        batches = [padded(start, size, labels) for start in range(0, N, size)]
        parts = [outputs(spec, params, KNOBS, jax.tree.map(jnp.asarray, batch)) for batch in batches]
        got = metrics("real", {"split": jax.device_get(parts)})
        assert got == pytest.approx(wanted, rel=1e-5)


def test_many_devices_count_as_one():
    spec = spec_of("softmax_xent")
    params, batch = params_of(spec), padded(0, 16, SEVERAL)
    mesh = make_mesh(MeshSpec())
    spread = jax.jit(lambda p, b: outputs(spec, p, KNOBS, b))(params, jax.device_put(batch, batched(mesh)))
    got = metrics("real", {"split": [jax.device_get(spread)]})
    assert got == pytest.approx(by_loop(spec, params, SEVERAL), rel=1e-5)


def test_padding_never_counts_even_where_it_has_labels():
    spec = spec_of("softmax_xent")
    params, batch = params_of(spec), padded(0, 16, ONE)
    batch["labels"][N:] = 3
    got = metrics("real", {"split": [jax.device_get(outputs(spec, params, KNOBS, jax.tree.map(jnp.asarray, batch)))]})
    assert got == pytest.approx(by_loop(spec, params, ONE), rel=1e-5)


def test_a_split_without_labels_has_no_images():
    spec = spec_of("softmax_xent")
    batch = padded(0, 16, np.full((N, 2), -1, np.int32))
    out = jax.device_get(outputs(spec, params_of(spec), KNOBS, jax.tree.map(jnp.asarray, batch)))
    assert metrics("real", {"split": [out]})["real/images"] == 0
