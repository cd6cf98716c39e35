"""The points of the network: what stands at each, that operations step in, and that an ordinary pass has nothing of it."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_attn.models import attention, heads, transformer, vit
from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of, static_of
from vit_attn.train.saved import abstract_state
from vit_attn.train.step import Examples, update

IMAGES = jax.random.normal(jax.random.key(5), (3, 14, 14, 3))
SIZES = {"variant": "mu/7", "image_size": 14, "width": 24, "depth": 3, "mlp_dim": 37, "heads": 3, "num_classes": 11}
PLAIN = {"pool": "gap", "attention": {"qk_norm": "none"}}
FULL = {
    "pool": "tok",
    "rep_size": True,
    "patch_norm": "tokens",
    "attention": {"h": "relu", "alpha": 0.7, "gate": "linear", "qk_norm": "width"},
}
MAP = {"pool": "map", "patch_norm": "patches", "layer_scale": 0.5, "attention": {"h": "clipped_softmax", "qk_norm": "head"}}
NUMBERS = Numbers(alpha=0.7, gamma=-0.03)


def built(**model):
    """(network, perturbed parameters)."""
    network = ViT(resolve({"model": {**SIZES, **model}}).model)
    leaves, tree = jax.tree.flatten(network.init(jax.random.key(0), IMAGES, NUMBERS)["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return network, jax.tree.unflatten(
        tree, [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def passing(network, params, operations=None):
    """(logits, what stands at the points behind the pass, by name)."""
    given = {"params": params} | ({} if operations is None else {"points": unflatten_dict(operations, sep="/")})
    (logits, _), found = jax.jit(lambda given: network.apply(given, IMAGES, NUMBERS, mutable=["points"]))(given)
    return logits, flatten_dict(found["points"], sep="/")


@pytest.mark.parametrize("model", [PLAIN, FULL, MAP, {**FULL, "scan_layers": True}], ids=["plain", "full", "map", "scanned"])
def test_training_does_not_know_of_them(model, monkeypatch):
    spec = resolve({"model": {**SIZES, **model}})
    shape = lambda *axes, dtype=jnp.float32: jax.ShapeDtypeStruct(axes, dtype)
    knobs = jax.tree.map(jnp.float32, knobs_of(spec))._replace(seed=jnp.uint32(0))
    arguments = abstract_state(spec), knobs, Examples(shape(4, 14, 14, 3), shape(4, 1, dtype=jnp.int32), shape())
    text = lambda: jax.jit(partial(update, static_of(spec))).lower(*arguments).as_text()
    with_points = text()
    for module in (attention, heads, transformer, vit):
        monkeypatch.setattr(module, "passed", lambda _, name, x: x)
    monkeypatch.setattr(attention, "at_points", lambda _: False)
    assert text() == with_points
    monkeypatch.setattr(transformer, "passed", lambda _, name, x: x + 1)
    assert text() != with_points


def block(name, attention_points):
    inner = [f"MultiHeadDotProductAttention_0/{point}" for point in attention_points]
    points = ["norm_0", *inner, "sum_0", "norm_1", "MlpBlock_0/hidden", "MlpBlock_0/output", "sum_1"]
    return [f"Transformer/{name}/{point}" for point in points]


def test_their_names():
    plain = ["q", "k", "v", "logits", "weights", "context", "output"]
    full = ["q", "k", "v", "q_norm", "k_norm", "logits", "unscaled_weights", "weights", "context", "gated", "output"]
    for model, first, inner, last in (
        (PLAIN, ["images", "embedded", "tokens"], plain, ["pooled"]),
        (FULL, ["images", "embedded", "tokens", "normed"], full, ["representation"]),
    ):
        blocks = [point for i in range(3) for point in block(f"encoderblock_{i}", inner)]
        wanted = {*first, *blocks, "Transformer/last_norm", *last, "class_logits"}
        assert set(passing(*built(**model))[1]) == wanted
    found = set(passing(*built(**MAP))[1])
    inner = [f"MultiHeadDotProductAttention_0/{point}" for point in plain]
    assert {f"MAPHead_0/{point}" for point in (*inner, "norm_0", "MlpBlock_0/hidden", "sum_0")} < found


def test_the_tensors_are_what_their_names_say():
    network, params = built(**FULL)
    logits, at = passing(network, params)
    np.testing.assert_allclose(logits, network.apply({"params": params}, IMAGES, NUMBERS)[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(logits, at["class_logits"])
    np.testing.assert_allclose(at["images"], IMAGES)
    before, length, d = at["normed"], 5, 8
    for layer in range(3):
        here = {key.removeprefix(f"Transformer/encoderblock_{layer}/"): np.asarray(x, np.float64) for key, x in at.items()}
        inner = {key.rpartition("/")[2]: x for key, x in here.items() if key.startswith("MultiHead")}
        z = np.einsum("bqhd,bkhd->bhqk", inner["q_norm"], inner["k_norm"]) / np.sqrt(d)
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        close(inner["logits"], z)
        close(inner["unscaled_weights"], np.maximum(z, 0))
        close(inner["weights"], np.maximum(z, 0) * length**-0.7)
        close(inner["context"].reshape(3, length, 3, d), np.einsum("bhqk,bkhd->bqhd", inner["weights"], inner["v"]))
        ungated, gated = (inner[name].reshape(3, length, 3, d) for name in ("context", "gated"))
        close(gated * ungated[..., :1], ungated * gated[..., :1])  # one factor for all d of a head
        close(here["sum_0"], before + inner["output"], rtol=1e-3, atol=1e-4)
        close(here["sum_1"], here["sum_0"] + here["MlpBlock_0/output"], rtol=1e-3, atol=1e-4)
        before = here["sum_1"]


@jax.tree_util.register_dataclass
@dataclass
class Times:
    """Multiplies, and counts how often."""

    factor: jax.Array
    count: jax.Array

    def __call__(self, x):
        return x * self.factor, Times(self.factor, self.count + 1)


def operations_at(at, chosen):
    """Other factors at other points and layers."""
    names = [name for name in at if chosen in name]
    return {name: Times(jnp.float32(1 + 0.1 * place), jnp.int32(place)) for place, name in enumerate(sorted(names))}


def test_operations_step_in():
    network, params = built(**PLAIN)
    at = passing(network, params)[1]
    operations = operations_at(at, "sum_1")
    _, found = passing(network, params, operations)
    assert {found[name].count.item() for name in operations} == {1, 2, 3}
    _, again = passing(network, params, {"class_logits": Times(jnp.float32(2), jnp.int32(0))})
    assert again["class_logits"].count == 1
    doubled, _ = network.apply({"params": params, "points": {"class_logits": Times(2.0, 0)}}, IMAGES, NUMBERS)
    np.testing.assert_allclose(doubled, 2 * at["class_logits"], rtol=1e-5)


@pytest.mark.parametrize(
    "ways", [{"scan_layers": True}, {"scan_layers": True, "remat": "nothing_saveable"}, {"remat": "dots_saveable"}]
)
def test_scanned_and_rematerialised_layers_have_their_own(ways):
    network, params = built(**FULL)
    at = passing(network, params)[1]
    for chosen in ("logits", "encoderblock", ""):
        operations = operations_at(at, chosen)
        want, _ = passing(network, params, operations)
        got, found = passing(built(**FULL, **ways)[0], params, operations)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
        assert [found[name].count.item() for name in sorted(operations)] == [*range(1, len(operations) + 1)]
    assert np.abs(np.asarray(want) - np.asarray(passing(network, params)[0])).max() > 0.1
