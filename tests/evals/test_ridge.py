"""The closed form against scikit-learn's ridge regression, and the choice of l2 against a plain loop."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from vit_attn.evals.ridge import choose, fit, held_out, probes

CLASSES = 5


def problem(images, features, seed=0, noise=2.0):
    """Features whose scales and means differ, and labels that they do not quite tell."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % CLASSES)
    centres = rng.normal(size=(CLASSES, features))
    x = centres[labels] + noise * rng.normal(size=(images, features))
    return (x * 10.0 ** rng.uniform(-3, 3, features) + rng.normal(size=features)).astype(np.float32), labels


def standardised(x, by):
    by = by.astype(float)
    return (x.astype(float) - by.mean(0)) / (by.std(0) + 1e-5)


def signs(labels, classes=CLASSES):
    return np.array([[1.0 if label == one else -1.0 for one in range(classes)] for label in labels])


def with_bias(z):
    return np.concatenate([z, np.full((len(z), 1), 100.0)], axis=1)


def scores(probe, x):
    return x.astype(float) @ probe.weights + probe.offset


def sklearn_scores(x, labels, l2, new, classes=CLASSES):
    """With the bias as one more feature, which is penalised like the others."""
    judge = Ridge(alpha=l2, fit_intercept=False, solver="svd").fit(with_bias(standardised(x, x)), signs(labels, classes))
    return judge.predict(with_bias(standardised(new, x)))


@pytest.mark.parametrize("l2", [1e-3, 1.0, 2.0**10, 1e7])
@pytest.mark.parametrize(("images", "features"), [(41, 13), (13, 41), (13, 13), (13, 14), (7, 6)])
def test_scores_are_those_of_sklearn(images, features, l2):
    x, labels = problem(images, features)
    new, _ = problem(17, features, seed=1)
    (probe,) = probes(x, labels, CLASSES, [l2])
    np.testing.assert_allclose(scores(probe, new), sklearn_scores(x, labels, l2, new), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(probe.predict(new), sklearn_scores(x, labels, l2, new).argmax(1))


@pytest.mark.parametrize(("images", "features"), [(41, 13), (13, 41)])
def test_the_bias_is_penalised_too(images, features):
    """Against a bias that is not: the same weights, and a bias smaller by 100^2 N / (100^2 N + l2)."""
    l2 = 1e6
    x, labels = problem(images, features)
    (probe,) = probes(x, labels, CLASSES, [l2])
    free = Ridge(alpha=l2, solver="svd").fit(standardised(x, x), signs(labels))
    np.testing.assert_allclose(probe.weights * (x.astype(float).std(0) + 1e-5)[:, None], free.coef_.T, rtol=1e-7, atol=1e-12)
    at_mean = probe.offset + x.astype(float).mean(0) @ probe.weights
    np.testing.assert_allclose(at_mean, free.intercept_ * (1e4 * images / (1e4 * images + l2)), rtol=1e-9)


def test_several_l2_are_the_same_as_one_by_one():
    x, labels = problem(23, 31)
    together = list(probes(x, labels, CLASSES, [0.5, 8.0]))
    for probe, l2 in zip(together, [0.5, 8.0], strict=True):
        np.testing.assert_array_equal(probe.weights, fit(x, labels, CLASSES, (l2,)).weights)
    assert np.abs(together[0].weights - together[1].weights).max() > 1e-6


def test_a_large_common_value_of_a_feature_does_not_blur_it():
    """In float32, or with the bias in the matrix, the small differences would drown."""
    x, labels = problem(29, 7)
    moved = x.astype(float) + 1e6
    (plain,), (far,) = (list(probes(one, labels, CLASSES, [1.0])) for one in (x.astype(float), moved))
    np.testing.assert_allclose(scores(far, moved), scores(plain, x), atol=1e-5)


def test_constant_features_and_single_images():
    x, labels = problem(19, 3)
    constant = np.concatenate([x, np.full((19, 2), 0.1, np.float32)], axis=1)
    (with_them,), (without,) = (list(probes(one, labels, CLASSES, [4.0])) for one in (constant, x))
    np.testing.assert_allclose(scores(with_them, constant), scores(without, x), atol=1e-7)
    (alone,) = probes(x[:1], np.array([3]), CLASSES, [4.0])
    assert set(alone.predict(x)) == {3}


def test_a_class_without_images_is_never_the_best():
    x, labels = problem(37, 5)
    (probe,) = probes(x, labels, CLASSES + 4, [1.0])
    np.testing.assert_allclose(scores(probe, x), sklearn_scores(x, labels, 1.0, x, CLASSES + 4), atol=1e-7)
    assert probe.predict(x).max() < CLASSES


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite(bad):
    x, labels = problem(11, 3)
    probe = fit(x, labels, CLASSES, (1.0,))
    spoilt = x.copy()
    spoilt[4, 1] = bad
    wanted = probe.predict(x)
    wanted[4] = -1
    np.testing.assert_array_equal(probe.predict(spoilt), wanted)
    assert probe.accuracy(spoilt, labels) == sum(wanted == labels) / 11
    assert fit(spoilt, labels, CLASSES, (1.0,)) is None
    assert fit(spoilt, labels, CLASSES, (1.0, 2.0)) is None
    assert fit(x[:0], labels[:0], CLASSES, (1.0,)) is None


def chosen_by_loops(x, labels, l2):
    """Fit on all but the last fifth (at least one) of each class's images, count hits on those."""
    held = []
    for one in range(CLASSES):
        mine = [i for i, label in enumerate(labels) if label == one]
        if len(mine) >= 2:
            held += mine[len(mine) - max(1, int(len(mine) / 5)) :]
    rest = [i for i in range(len(labels)) if i not in held]
    hits = {}
    for value in l2:
        found = sklearn_scores(x[rest], labels[rest], value, x[held]).argmax(1)
        hits[value] = int(sum(found == labels[held]))
    return max(value for value in l2 if hits[value] == max(hits.values())), hits


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("images", "features"), [(31, 11), (53, 5), (113, 29)])
def test_l2_is_chosen_on_held_out_images(images, features, seed):
    l2 = (0.01, 1.0, 3000.0, 30.0, 2e6)
    x, labels = problem(images, features, seed, noise=1.5)
    x = x / np.abs(x).max(0)
    wanted, _ = chosen_by_loops(x, labels, l2)
    assert choose(x, labels, CLASSES, l2) == wanted
    again, here = fit(x, labels, CLASSES, l2), fit(x, labels, CLASSES, (wanted,))  # refitted on all images
    np.testing.assert_array_equal(again.weights, here.weights)


def test_the_choice_is_not_always_the_same():
    """Else the test above would show nothing."""
    l2, found = (0.01, 1.0, 3000.0, 30.0, 2e6), set()
    for seed in range(8):
        x, labels = problem(53, 5, seed, noise=1.5)
        found.add(chosen_by_loops(x / np.abs(x).max(0), labels, l2)[0])
    assert len(found) > 1


def test_what_is_held_out():
    labels = np.array([0] * 10 + [1] * 2 + [2] + [3] * 9)
    assert np.flatnonzero(held_out(labels)).tolist() == [8, 9, 11, 21]


def test_one_shot_takes_the_median():
    x, _ = problem(CLASSES, 3)
    assert choose(x, np.arange(CLASSES), CLASSES, (512.0, 1.0, 8.0)) == 8.0
    assert choose(x, np.arange(CLASSES), CLASSES, (512.0, 1.0, 8.0, 2.0)) == 8.0


def test_of_equally_good_values_the_largest():
    x = np.repeat(np.eye(2), 6, axis=0)
    assert choose(x, np.repeat([0, 1], 6), 2, (4.0, 64.0, 0.5)) == 64.0
