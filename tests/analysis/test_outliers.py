"""Outliers against plain loops over captured tensors, scipy, and outliers planted where the test knows them to be."""

import math

import numpy as np
import pytest
import scipy.stats
from outlier_runs import (
    DEPTH,
    GATED,
    HEADS,
    PLAIN,
    RELU,
    SIDE,
    WIDTH,
    batches_of,
    captured,
    params_of,
    pixels,
    plant_tokens,
    spec_of,
)

from vit_attn.analysis.outliers.logged import logged_outliers
from vit_attn.analysis.outliers.measure import ATTENTION, measure
from vit_attn.analysis.outliers.metrics import Heads, choose_heads, metrics_of
from vit_attn.analysis.outliers.sample import sample_of, shown_images
from vit_attn.spec.errors import UserError

IMAGES = 11
PLACES = {
    "block": "sum_1",
    "attention": f"{ATTENTION}/output",
    "ffn": "MlpBlock_0/output",
    "norm_0": "norm_0",
    "norm_1": "norm_1",
}
KINDS = {"plain": PLAIN, "gated": GATED, "relu": RELU}
DIM, PATCHES = 18, (5, 15)
READER = 0  # the head of block 1 that is made to attend to the planted tokens


@pytest.fixture(scope="module", params=KINDS)
def planted(request):
    """(spec, parameters, images, captured tensors, statistics) of a network with two patches that stick out."""
    spec = spec_of(KINDS[request.param])
    params = plant_tokens(params_of(spec), PATCHES, DIM, 40.0)
    attention = params["Transformer"]["encoderblock_1"][ATTENTION]
    attention["key"]["kernel"][DIM, READER] += 1.0
    attention["query"]["bias"][READER] += 1.0
    images = pixels(IMAGES)
    at, _ = captured(spec, params, images)
    return spec, params, images, at, measure(spec, params, batches_of(images, 4))


def tensors(at):
    """{family: [tensor of each layer]}."""
    found = {}
    for family, path in PLACES.items():
        blocks = [at[f"encoderblock_{layer}"] for layer in range(DEPTH)]
        for key in path.split("/"):
            blocks = [block[key] for block in blocks]
        found[family] = blocks
    return {**found, "last_norm": [at["last_norm"]]}


def far(x):
    """Which numbers of an image are further than 6 std from their mean, one by one."""
    mean, std = x.mean(), math.sqrt(((x - x.mean()) ** 2).sum() / (x.size - 1))
    result = np.zeros(x.shape, bool)
    for place, value in np.ndenumerate(x):
        result[place] = abs(value - mean) > 6 * std
    return result


def pearson(x):
    """With the std of n - 1, and 1e-6 below the line."""
    kurtosis, variance = scipy.stats.kurtosis(x, axis=None, fisher=False), x.var()
    return kurtosis * variance**2 / ((variance * x.size / (x.size - 1)) ** 2 + 1e-6)


def test_norms_and_kurtoses_by_every_convention(planted):
    _, _, _, at, statistics = planted
    got = metrics_of(statistics, choose_heads(statistics))
    norms, kurtoses = {}, {}
    for family, layers in tensors(at).items():
        norms[family] = [np.mean([abs(image).max() for image in x]) for x in layers]
        kurtoses[family] = [np.mean([pearson(image) for image in x]) for x in layers]
        for layer in range(len(layers)):
            name = "" if family == "last_norm" else f"/layer_{layer:02d}"
            assert got[f"outliers/{family}_inf_norm{name}"] == pytest.approx(norms[family][layer], rel=1e-4)
            assert got[f"outliers/{family}_kurtosis{name}"] == pytest.approx(kurtoses[family][layer], rel=1e-3)
    wanted = {
        "max_inf_norm": max(norms["block"]),
        "kurtosis": np.mean(kurtoses["block"]),
        "ffn_max_inf_norm": max(norms["ffn"]),
        "ffn_kurtosis": np.mean(kurtoses["ffn"]),
        "all_max_inf_norm": max(max(of) for of in norms.values()),
        "all_kurtosis": np.mean([value for of in kurtoses.values() for value in of]),
        "all_max_kurtosis": max(value for of in kurtoses.values() for value in of),
        "max_kurtosis": max(kurtoses["block"]),
    }
    behind_blocks = [*kurtoses["norm_0"][1:], *kurtoses["last_norm"]]
    bert = [value for pair in zip(kurtoses["ffn"], behind_blocks, strict=True) for value in pair]
    wanted |= {"ffn_norm_kurtosis": sum(bert) / (2 * DEPTH), "ffn_norm_max_kurtosis": max(bert)}
    assert len([value for of in kurtoses.values() for value in of]) == 5 * DEPTH + 1
    for name, value in wanted.items():
        assert got[f"outliers/{name}"] == pytest.approx(value, rel=1e-3), name
    assert got["outliers/images"] == IMAGES


def test_outliers_are_those_of_a_loop(planted):
    spec, _, _, at, statistics = planted
    got = metrics_of(statistics, choose_heads(statistics))
    for family, layers in tensors(at).items():
        found = [np.stack([far(image) for image in x]) for x in layers]
        of = statistics.outliers[family]
        np.testing.assert_array_equal(of.by_dim, [one.sum(axis=(0, 1)) for one in found], err_msg=family)
        np.testing.assert_array_equal(of.by_token, [one.sum(axis=(0, 2)) for one in found], err_msg=family)
        word = "" if family == "block" else f"{family}_"
        assert got[f"outliers/{word}share"] == pytest.approx(np.mean(found))
    first = int(spec.model.pool == "tok")
    assert np.flatnonzero(statistics.outliers["block"].by_token[0]).tolist() == [patch + first for patch in PATCHES]
    assert got["outliers/top_dim"] == DIM
    assert got["outliers/top_token"] in {patch + first for patch in PATCHES}
    assert got["outliers/top10_dims_share"] == 1.0


def test_owner_and_reader_of_the_outliers(planted):
    spec, _, _, at, statistics = planted
    heads = choose_heads(statistics)
    counts = [np.sum([far(image).sum() for image in x]) for x in tensors(at)["block"][:-1]]
    assert heads.layer == 1 + np.argmax(counts) == 1
    assert heads.dim == DIM
    assert [*heads.by_role] == ["owner", "reader"]
    block, own = at["encoderblock_0"]["sum_1"], at["encoderblock_1"][ATTENTION]
    updates = own.get("gated", own["context"]).reshape(IMAGES, -1, HEADS, WIDTH // HEADS)
    lanes = np.arange(WIDTH).reshape(HEADS, -1)  # of each head
    assert DIM in lanes[heads.by_role["owner"]]
    masses, got = np.zeros(HEADS), metrics_of(statistics, heads)
    for role, head in heads.by_role.items():
        found = {"mass": [], "value_norm": [], "value_norm_elsewhere": [], "update_norm": [], "update_norm_elsewhere": []}
        for image in range(IMAGES):
            tokens = far(block[image]).any(axis=1)
            shares = [sum(abs(w[:, j]).sum() for j in np.flatnonzero(tokens)) / abs(w).sum() for w in own["weights"][image]]
            masses += shares
            found["mass"].append(shares[head])
            for name, x in (("value_norm", own["v"]), ("update_norm", updates)):
                norms = np.sqrt((x[image, :, head] ** 2).sum(axis=-1))
                found[name].append(norms[tokens].mean())
                found[f"{name}_elsewhere"].append(norms[~tokens].mean())
        assert got[f"outliers/{role}_head"] == head
        for name, values in found.items():
            assert got[f"outliers/{role}_{name}"] == pytest.approx(np.mean(values), rel=1e-3), (role, name)
    assert heads.by_role["reader"] == masses.argmax()
    if spec.model.attention.h == "softmax":
        assert heads.by_role["reader"] == READER
        assert got["outliers/reader_mass"] > 0.3


def test_the_sample_is_what_stands_at_the_heads(planted):
    spec, params, images, at, statistics = planted
    heads = choose_heads(statistics)
    shown = [*dict.fromkeys([heads.by_role["owner"], heads.by_role["reader"]])]
    indices = shown_images(statistics, heads)
    assert indices == [0, 1, 2, 3]
    sample = sample_of(spec, params, heads, indices, images[indices])
    own = at[f"encoderblock_{heads.layer}"][ATTENTION]
    updates = own.get("gated", own["context"]).reshape(IMAGES, -1, HEADS, WIDTH // HEADS)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_array_equal(sample.outliers, [far(at["encoderblock_0"]["sum_1"][i]).sum(axis=1) for i in indices])
    assert sample.weights.shape[1] == sample.values.shape[1] == len(shown)
    for place, head in enumerate(shown):
        weights, update = own["weights"][indices, head], updates[indices][:, :, head]
        np.testing.assert_allclose(sample.weights[:, place], weights, **close)
        np.testing.assert_allclose(sample.values[:, place], own["v"][indices][:, :, head], **close)
        np.testing.assert_allclose(sample.updates[:, place], update, **close)
        np.testing.assert_allclose(sample.received[:, place], weights.mean(1) * weights.shape[-1], **close)
        np.testing.assert_allclose(sample.value_norms[:, place], np.sqrt((own["v"][indices][:, :, head] ** 2).sum(-1)), **close)
        np.testing.assert_allclose(sample.update_norms[:, place], np.sqrt((update**2).sum(-1)), **close)


def test_one_head_may_be_both():
    heads = Heads(1, 5, {"owner": 2, "reader": 2})
    assert heads.numbers == [2]
    assert heads.roles(2) == ["owner", "reader"]
    assert Heads(1, 5, {"owner": 2, "reader": 0}).numbers == [2, 0]


def test_batches_of_any_size_give_the_same_numbers(planted):
    """4 at a time, where the last batch is filled up, and all at once."""
    spec, params, images, _, statistics = planted
    others = measure(spec, params, batches_of(images, IMAGES))
    one, other = (metrics_of(found, choose_heads(found)) for found in (statistics, others))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, rel=1e-5), name


def test_a_rescaling_that_the_function_does_not_see_is_found():
    """One channel of a LayerNorm times 200, the weights behind it by 200: this tensor has outliers, all in there."""
    spec, images, dim, layer = spec_of(PLAIN), pixels(IMAGES), 13, 1
    params = params_of(spec, noise=0.05)
    _, before = captured(spec, params, images)
    block = params["Transformer"][f"encoderblock_{layer}"]
    block["LayerNorm_1"]["scale"][dim] *= 200
    block["LayerNorm_1"]["bias"][dim] *= 200
    block["MlpBlock_0"]["Dense_0"]["kernel"][dim] /= 200
    _, after = captured(spec, params, images)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    statistics = measure(spec, params, batches_of(images, 4))
    for family, of in statistics.outliers.items():
        places = np.argwhere(of.by_dim).tolist()
        assert places == ([[layer, dim]] if family == "norm_1" else []), family
    got = metrics_of(statistics, choose_heads(statistics))
    assert got["outliers/norm_1_top_dim"] == dim
    assert got["outliers/norm_1_top_dim_share"] == 1.0
    assert got["outliers/top_dim"] == got["outliers/top_token"] == -1.0


@pytest.mark.parametrize("depth", [1, DEPTH])
def test_without_outliers_it_is_the_head_most_set_on_one_token(depth):
    spec = spec_of({**PLAIN, "depth": depth})
    params, images = params_of(spec), pixels(IMAGES)
    at, _ = captured(spec, params, images)
    statistics = measure(spec, params, batches_of(images, 4))
    heads = choose_heads(statistics)
    weights = np.stack([at[f"encoderblock_{layer}"][ATTENTION]["weights"] for layer in range(depth)])
    received = weights.sum(axis=3)  # [layers, N, H, keys]
    focus = (received.max(axis=-1) / received.sum(axis=-1)).mean(axis=1)
    assert (heads.layer, heads.by_role["focused"]) == tuple(np.unravel_index(focus.argmax(), focus.shape))
    assert heads.dim == -1
    assert [*heads.by_role] == ["focused"]
    assert "no outliers" in heads.rule
    assert metrics_of(statistics, heads)["outliers/focused_focus"] == pytest.approx(focus.max(), rel=1e-4)
    sample = sample_of(spec, params, heads, [2], images[[2]])
    assert sample.outliers.shape == (1, SIDE**2)
    assert (sample.outliers == (0 if heads.layer else -1)).all()


def test_images_with_outliers_are_shown_first(planted):
    _, _, _, _, statistics = planted
    heads = choose_heads(statistics)
    has = np.zeros_like(statistics.has_outliers)
    has[[3, 7], heads.layer - 1] = True
    few = statistics.__class__(**{**vars(statistics), "has_outliers": has})
    assert shown_images(few, heads) == [0, 1, 3, 7]


def test_what_is_not_finite_is_an_error():
    spec = spec_of(PLAIN)
    params = params_of(spec)
    params["Transformer"]["encoderblock_1"]["MlpBlock_0"]["Dense_1"]["bias"][2] = np.nan
    with pytest.raises(UserError, match="ffn of layer 1 has numbers that are not finite"):
        measure(spec, params, batches_of(pixels(3), 4))


def test_what_was_logged_over_steps_is_read():
    of = lambda step, *values, quantity="block_inf_norm", name="stats": {
        "step": step,
        **{f"{name}/{quantity}/layer_{i:02d}": x for i, x in enumerate(values)},
    }
    norms = [of(20, 3.0, 4.0), of(10, 1.0, 2.0), of(10, 9.0, 9.0, name="zz"), of(20, 3.5, 4.5)]
    shares = [of(0, 0.1, 0.2, quantity="outlier_share", name=name) for name in ("stats", "stats", "zz", "stats")]
    rows = [{"step": 1, "train/loss": 2.0}, *(b | a for a, b in zip(norms, shares, strict=True))]
    logged = logged_outliers(rows)
    assert (logged.evaluator, logged.steps) == ("stats", [10, 20])
    assert [*logged.by_layer] == ["block_inf_norm", "outlier_share"]  # kurtosis was not logged
    np.testing.assert_array_equal(logged.by_layer["block_inf_norm"], [[1.0, 2.0], [3.5, 4.5]])
    np.testing.assert_array_equal(logged.by_layer["outlier_share"], [[0.1, 0.2]] * 2)
    assert logged_outliers(rows[:1]) is None
