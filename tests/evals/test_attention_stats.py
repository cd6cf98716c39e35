"""Statistics of layers against a ViT written out in numpy, over any batches and devices, and under nn.scan."""

import math
from functools import cache, partial
from itertools import pairwise

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vit_attn.evals.attention_stats import metrics, outliers_of, outputs, top_share
from vit_attn.models import attention as attention_module
from vit_attn.models.vit import ViT
from vit_attn.parallel.mesh import make_mesh
from vit_attn.parallel.rules import batched
from vit_attn.spec.mesh import MeshSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of, static_of

IMAGES, SIDE, PATCH, DEPTH, WIDTH, HEADS = 17, 21, 3, 2, 45, 3  # 7 x 7 patches
PLANTED_DIM, PLANTED_PATCHES = 31, (5, 11)
KINDS = {
    "softmax": {"h": "softmax", "qk_norm": "none"},
    "softmax1": {"h": "softmax1", "gate": "gau"},
    "clipped": {"h": "clipped_softmax", "gamma": -0.1, "zeta": 1.01, "gate": "linear", "qk_norm": "width"},
    "relu": {"h": "relu", "alpha": 0.9, "alpha_learned": "head", "qk_norm": "none"},
    "relu2": {"h": "relu2", "alpha": 1.0, "alpha_learned": "layer", "gate": "mlp"},
    "sigmoid_bias": {"h": "sigmoid_bias", "gate": "all_heads", "qk_norm_bias": True},
}
POOLS = dict(zip(KINDS, ["gap", "tok", "map", "tok", "gap", "map"], strict=True))


@cache
def spec_of(kind):
    sizes = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "mlp_dim": 37, "image_size": SIDE, "num_classes": 5}
    model = {"variant": f"mu/{PATCH}", **sizes, "pool": POOLS[kind], "attention": KINDS[kind]}
    return resolve({"model": model})


@cache
def images():
    return np.random.default_rng(3).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)


@cache
def params_of(kind):
    """Noise on every parameter, and a channel that sticks out of the residual stream at two patches."""
    spec = spec_of(kind)
    start = ViT(spec.model).init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)), knobs_of(spec).attention)["params"]
    leaves, tree = jax.tree.flatten(start)
    rng = np.random.default_rng(5)
    params = jax.tree.unflatten(tree, [np.array(x + 0.2 * rng.normal(size=x.shape), np.float32) for x in leaves])
    params["pos_embedding"][0, PLANTED_PATCHES, PLANTED_DIM] += (80.0, 120.0)
    return params


def batches_of(kind, size, compute=None):
    """Outputs of all images, `size` at a time; what fills up the last batch is noise that must not count."""
    compute = compute or compiled(kind)
    knobs, found = knobs_of(spec_of(kind)), []
    for start in range(0, IMAGES, size):
        real = images()[start : start + size]
        noise = np.full((size - len(real), SIDE, SIDE, 3), 255, np.uint8)
        mask = np.float32([1] * len(real) + [0] * len(noise))
        batch = {"image": np.concatenate([real, noise]), "labels": np.zeros((size, 1), np.int32), "mask": mask}
        found.append(jax.device_get(compute(params_of(kind), knobs, batch)))
    return found


def numbers_of(kind, size, compute=None):
    return metrics("stats", {"split": batches_of(kind, size, compute)})


@cache
def compiled(kind):
    return jax.jit(partial(outputs, static_of(spec_of(kind))))


def layer_norm(x, params):
    return oracle.layer_norm(x, (-1,), params)


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


@cache
def by_hand(kind):
    """[(logits, weights, MLP's output, block's output)] of each layer, in float64."""
    own, params = spec_of(kind).model.attention, oracle.float64(params_of(kind))
    side = SIDE // PATCH
    patches = (images() / 127.5 - 1).reshape(IMAGES, side, PATCH, side, PATCH, 3).swapaxes(2, 3).reshape(IMAGES, side**2, -1)
    x = patches @ params["embedding"]["kernel"].reshape(-1, WIDTH) + params["embedding"]["bias"] + params["pos_embedding"]
    if POOLS[kind] == "tok":
        x = np.concatenate([np.repeat(params["cls"], IMAGES, axis=0), x], axis=1)
    numbers = {"alpha": own.alpha or 0.0, "gamma": own.gamma or 0.0, "zeta": own.zeta or 1.0}
    layers = []
    for layer in range(DEPTH):
        block = params["Transformer"][f"encoderblock_{layer}"]
        attention = block["MultiHeadDotProductAttention_0"]
        y = layer_norm(x, block["LayerNorm_0"])
        z, w = logits_and_weights(own, attention, y, numbers)
        x = x + oracle.attention(own, attention, y, numbers)
        mlp = block["MlpBlock_0"]
        hidden = oracle.POINTWISE["gelu"](dense(layer_norm(x, block["LayerNorm_1"]), mlp["Dense_0"]))
        ffn = dense(hidden, mlp["Dense_1"])
        x = x + ffn
        layers.append((z, w, ffn, x))
    return layers


def logits_and_weights(own, params, y, numbers):
    q, k = (np.einsum("bld,dhe->blhe", y, params[name]["kernel"]) + params[name]["bias"] for name in ("query", "key"))
    if own.qk_norm != "none":
        axes = (-1,) if own.qk_norm == "head" else (-2, -1)
        q, k = oracle.layer_norm(q, axes, params["query_ln"]), oracle.layer_norm(k, axes, params["key_ln"])
    z = np.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(WIDTH // HEADS)
    alphas = np.broadcast_to(params.get("alpha", numbers["alpha"]), HEADS)
    return z, np.stack([oracle.weights(own.h, z[:, i], **{**numbers, "alpha": alphas[i]}) for i in range(HEADS)], axis=1)


def kurtosis(x):
    flat = x.reshape(IMAGES, -1)
    fourth = ((flat - flat.mean(1, keepdims=True)) ** 4).mean(1)
    return (fourth / (flat.std(1, ddof=1) ** 4 + 1e-6)).mean()


def far(x):
    flat = x.reshape(IMAGES, -1)
    return (abs(flat - flat.mean(1, keepdims=True)) > 6 * flat.std(1, ddof=1, keepdims=True)).reshape(x.shape)


def entropy(h, w):
    rows = np.concatenate([w, 1 - w.sum(-1, keepdims=True)], -1) if h == "softmax1" else w
    return scipy.stats.entropy(rows, axis=-1).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_every_statistic_is_that_of_a_model_written_out(kind):
    h, got, layers = KINDS[kind]["h"], numbers_of(kind, 5), by_hand(kind)
    quantities = {
        "weight_mean_times_L": [w.mean() * w.shape[-1] for _, w, _, _ in layers],
        "weight_zero_share": [(w == 0).mean() for _, w, _, _ in layers],
        "logit_max_abs": [abs(z).max() for z, _, _, _ in layers],
        "ffn_inf_norm": [abs(f).max((1, 2)).mean() for _, _, f, _ in layers],
        "ffn_kurtosis": [kurtosis(f) for _, _, f, _ in layers],
        "block_inf_norm": [abs(x).max((1, 2)).mean() for _, _, _, x in layers],
        "block_kurtosis": [kurtosis(x) for _, _, _, x in layers],
        "outlier_share": [far(x).mean() for _, _, _, x in layers],
    }
    if h in ("softmax", "softmax1"):
        quantities["weight_entropy"] = [entropy(h, w) for _, w, _, _ in layers]
    for name, values in quantities.items():
        found = [got.pop(f"stats/{name}/layer_{layer:02d}") for layer in range(DEPTH)]
        tolerance = {"atol": 2e-5} if "zero_share" in name else {"atol": 1e-9}  # a logit of 1e-8 may have either sign
        np.testing.assert_allclose(found, values, rtol=2e-4, **tolerance, err_msg=name)
        over = "all" if name == "outlier_share" else "max_over" if "norm" in name or "max" in name else "mean_over"
        total = (max if over == "max_over" else np.mean)(values)
        np.testing.assert_allclose(got.pop(f"stats/{name}/{over}_layers"), total, rtol=2e-4, **tolerance, err_msg=name)
    assert got.pop("stats/images") == IMAGES
    left = {name.split("/")[1] for name in got}
    assert left == {f"outlier_{what}" for what in ("top10_dims_share", "top_dim", "top10_tokens_share", "top_token")}


@pytest.mark.parametrize("kind", ["relu", "relu2", "clipped"])
def test_some_weights_are_exactly_zero_and_not_all(kind):
    shares = [numbers_of(kind, 5)[f"stats/weight_zero_share/layer_{layer:02d}"] for layer in range(DEPTH)]
    assert all(0.05 < share < 0.99 for share in shares)


@pytest.mark.parametrize("kind", ["softmax", "relu"])
def test_a_planted_outlier_is_found(kind):
    """Without and with a CLS token, which takes position 0."""
    got, shift = numbers_of(kind, 5), int(POOLS[kind] == "tok")
    tokens = [patch + shift for patch in PLANTED_PATCHES]
    for where in ("layer_00", "layer_01", "all_layers"):
        assert got[f"stats/outlier_top_dim/{where}"] == PLANTED_DIM
        assert got[f"stats/outlier_top_token/{where}"] in tokens
        assert got[f"stats/outlier_top10_dims_share/{where}"] == got[f"stats/outlier_top10_tokens_share/{where}"] == 1.0
    found = outliers_of(batches_of(kind, 5))
    assert found.images == IMAGES
    for layer, (_, _, _, x) in enumerate(by_hand(kind)):
        np.testing.assert_array_equal(found.by_dim[layer], far(x).sum((0, 1)))
        np.testing.assert_array_equal(found.by_token[layer], far(x).sum((0, 2)))
    assert found.by_token[0, tokens].tolist() == [IMAGES, IMAGES]


def test_the_ten_largest_counts():
    counts = np.array([0, 5, *range(20), 3])
    assert top_share(counts) == sum(range(10, 20)) / counts.sum()
    assert top_share(np.zeros(7, np.int64)) == 0.0


def test_no_outlier_is_no_index():
    zeros = {"outliers_by_dim": np.zeros((2, 5), np.int32), "outliers_by_token": np.zeros((2, 3), np.int32)}
    got = metrics("x", {"split": [{"counts": np.ones(4, np.float32), **zeros}]})
    assert {name: value for name, value in got.items() if "top_dim" in name} == {
        "x/outlier_top_dim/layer_00": -1.0,
        "x/outlier_top_dim/layer_01": -1.0,
        "x/outlier_top_dim/all_layers": -1.0,
    }
    assert got["x/outlier_share/all_layers"] == got["x/outlier_top10_dims_share/all_layers"] == 0.0


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        close = pytest.approx(value, abs=2e-5) if "zero_share" in name else pytest.approx(value, rel=1e-5, abs=1e-9)
        assert other[name] == close, name


def test_batches_of_any_size_give_the_same_numbers():
    sizes = [numbers_of("softmax1", size) for size in (3, 5, 17)]
    for one, other in pairwise(sizes):
        assert_same(one, other)


@pytest.mark.parametrize(("kind", "data", "seq"), [("softmax", 8, 1), ("relu", 2, 4)])
def test_devices_give_the_same_numbers(kind, data, seq, monkeypatch):
    """4 devices do not divide 50 tokens: 2 are padding. With few logits at a time, images go in turns."""
    want = numbers_of(kind, 5)
    monkeypatch.setattr(attention_module, "STATISTICS_LOGITS", 1 + HEADS * 52 * 52 // seq)
    mesh = make_mesh(MeshSpec(data=data, seq=seq), jax.devices()[: data * seq])
    compute = jax.jit(partial(outputs, static_of(spec_of(kind))))

    def sharded(params, knobs, batch):
        with jax.set_mesh(mesh):
            return compute(params, knobs, jax.device_put(batch, batched(mesh)))

    assert_same(want, numbers_of(kind, 16, sharded))


def test_images_go_in_turns_that_fit(monkeypatch):
    monkeypatch.setattr(attention_module, "STATISTICS_LOGITS", 1000)
    turns = attention_module._turns
    assert [turns(12, logits) for logits in (1, 83, 84, 250, 400, 999, 10**6)] == [1, 1, 2, 3, 6, 12, 12]
    assert turns(13, 100) == 13


def test_nothing_is_computed_unless_asked():
    spec = spec_of("softmax")
    model, numbers, pixels = ViT(spec.model), knobs_of(spec).attention, jnp.zeros((1, SIDE, SIDE, 3))
    assert set(jax.eval_shape(model.init, jax.random.key(0), pixels, numbers)) == {"params"}

    def equations(*asked):
        apply = lambda params: model.apply({"params": params}, pixels, numbers, mutable=asked)
        return len(jax.make_jaxpr(apply)(params_of("softmax")).eqns)

    assert equations() == equations("intermediates") < equations("weights") < equations("stats")
