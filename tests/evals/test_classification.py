"""Each validation image counts once: means over padded batches equal those of a plain loop over the images."""

import jax
import numpy as np
import pytest

from vit_attn.evals.classification import means, sums
from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import Knobs

KNOBS = Knobs(Numbers(alpha=0.5), 0.1, 0.0, 0)


@pytest.mark.parametrize("loss", ["softmax_xent", "sigmoid_xent"])
def test_any_batch_size_gives_the_plain_mean(loss):
    model = {"variant": "mu/4", "image_size": 8, "num_classes": 5, "attention": {"h": "sigmoid"}}
    spec = resolve({"model": model, "train": {"loss": loss}})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, 5, 13).astype(np.int32)
    params = ViT(spec.model).init(jax.random.key(0), jax.numpy.zeros((1, 8, 8, 3)), KNOBS.attention)["params"]
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    logits = np.asarray(
        ViT(spec.model).apply({"params": params}, jax.numpy.asarray(images / 127.5 - 1, "float32"), KNOBS.attention)[0], float
    )
    hits = (logits.argmax(-1) == labels).mean()
    if loss == "softmax_xent":
        wanted = np.mean(np.log(np.exp(logits).sum(-1)) - logits[range(13), labels])
    else:
        signs = np.where(np.eye(5)[labels] > 0, 1, -1)
        wanted = np.mean(np.log1p(np.exp(-signs * logits)).sum(-1))
    for size in (1, 4, 13, 16):
        parts = []
        for start in range(0, 13, size):
            real = min(size, 13 - start)
            pad = [(0, size - real)]
            batch = {
                "image": np.pad(images[start : start + real], [*pad, (0, 0), (0, 0), (0, 0)]),
                "label": np.pad(labels[start : start + real], pad),
                "mask": np.pad(np.ones(real, np.float32), pad),
            }
            parts.append(sums(spec, params, KNOBS, jax.tree.map(jax.numpy.asarray, batch)))
        got = means(parts)
        assert got["val/images"] == 13
        assert got["val/accuracy"] == pytest.approx(hits, abs=1e-6)
        assert got["val/loss"] == pytest.approx(wanted, rel=1e-5)
