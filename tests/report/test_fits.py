"""Fits of the report: against closed forms, and against what their intervals promise over many draws."""

import numpy as np
import pytest

from vit_attn.report.best_alpha import best_alpha
from vit_attn.report.bootstrap import RESAMPLES, generator, interval, resampled_means
from vit_attn.report.power_law import compute_ratio, power_law
from vit_attn.report.series import Point

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def points(function, alphas=ALPHAS, seeds=1, std=0.0, rng=None):
    noise = np.zeros((len(alphas), seeds)) if rng is None else rng.normal(0, std, (len(alphas), seeds))
    return [Point(a, tuple(function(a) + noise[i])) for i, a in enumerate(alphas)]


@pytest.mark.parametrize("best", [0.4, 0.75, 0.93, 1.21])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_vertex_of_a_parabola_is_found_exactly(best, sign):
    found = best_alpha(points(lambda a: sign * (71 - 3 * (a - best) ** 2)), higher_is_better=sign > 0)
    assert (found.alpha, found.value) == (pytest.approx(best), pytest.approx(sign * 71))
    assert (found.low, found.high, found.note) == (None, None, "no interval: an alpha has one seed")


def test_only_the_neighbourhood_of_the_best_takes_part():
    far = {0.0: 5.0, 2.0: 40.0}  # of no parabola with the others
    near = {0.5: 70.0, 1.0: 72.0, 1.5: 71.0}
    table = {**far, **near}
    found = best_alpha(points(table.get, sorted(table)))
    left, top, right = near.values()
    assert found.alpha == pytest.approx(1 + 0.5 * (left - right) / (2 * (left - 2 * top + right)))  # through three points


def test_at_an_end_of_the_grid_it_may_lie_beyond():
    found = best_alpha(points(lambda a: a))
    assert (found.alpha, found.note) == (1.5, "at the end of the grid: it may lie beyond")
    assert best_alpha(points(lambda a: -a)).alpha == 0.0
    assert best_alpha(points(lambda a: a, ALPHAS[:2])).note.startswith("not enough points: 2 of at least 3")
    assert best_alpha([]).alpha is None


def test_the_interval_of_the_best_alpha_covers_it_as_often_as_it_says():
    rng, covered = np.random.default_rng(7), []
    for _ in range(150):
        found = best_alpha(points(lambda a: 70 - 4 * (a - 0.8) ** 2, seeds=5, std=0.2, rng=rng))
        covered.append(found.low <= 0.8 <= found.high)
        assert found.low <= found.alpha <= found.high
    assert 0.86 <= np.mean(covered) <= 0.99  # 95 % with many seeds, somewhat less with five


def test_the_same_runs_give_the_same_interval():
    some = points(lambda a: 70 - 4 * (a - 0.8) ** 2, seeds=3, std=0.2, rng=np.random.default_rng(1))
    assert best_alpha(some) == best_alpha(some)


def test_resampled_means_spread_as_the_standard_error():
    values = [1.0, 4.0, 2.0, 7.0, 3.0]
    drawn = resampled_means(values, generator())
    assert drawn.shape == (RESAMPLES,)
    assert drawn.mean() == pytest.approx(np.mean(values), abs=0.1)
    assert drawn.std() == pytest.approx(np.std(values, ddof=1) / np.sqrt(5), rel=0.1)
    np.testing.assert_array_equal(resampled_means([3.5], generator()), 3.5)


def test_the_interval_holds_95_percent():
    low, high = interval(np.arange(1001.0))
    assert (low, high) == (pytest.approx(25), pytest.approx(975))


def law_of(factor, exponent, compute=(11.0, 37.0, 101.0, 499.0)):
    return power_law(compute, [factor * c**-exponent for c in compute])


def test_a_power_law_is_found_exactly():
    law = law_of(56.0, 0.17)
    assert np.exp(law.intercept) == pytest.approx(56.0)
    assert law.exponent == pytest.approx((0.17, 0.17, 0.17))
    assert law.error_at(np.array([7.0])) == pytest.approx(56.0 * 7.0**-0.17)


@pytest.mark.parametrize("n", [5, 47])
def test_its_interval_is_that_of_least_squares(n):
    rng = np.random.default_rng(3)
    x = np.linspace(0, 5, n)
    y = 3 - 0.4 * x + rng.normal(0, 0.1, n)
    law = power_law(np.exp(x), np.exp(y))
    residuals = y - np.polyval(np.polyfit(x, y, 1), x)
    error = np.sqrt(residuals @ residuals / (n - 2) / ((x - x.mean()) ** 2).sum())
    assert law.drawn[:, 1].std() == pytest.approx(error, rel=0.08)
    exponent, low, high = law.exponent
    assert low < exponent < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_two_sizes_are_no_power_law():
    assert power_law([1.0, 2.0], [3.0, 2.0]) is None
    assert power_law([1.0, 2.0, 2.0], [3.0, 2.0, 2.1]) is None
    assert power_law([1.0, 2.0, 3.0], [3.0, 2.0, 0.0]) is None


def test_the_ratio_of_compute_at_the_same_error():
    slower = law_of(56.0 * 1.3**0.17, 0.17)  # 1.3 times the compute for every error
    found = compute_ratio(slower, law_of(56.0, 0.17), (20.0, 45.0))
    assert found[:3] == pytest.approx((1.3, 1.3, 1.3))
    assert found.error == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("law", "errors", "note"),
    [
        (None, (20.0, 45.0), "not enough points"),
        (law_of(56.0, 0.17), (45.0, 20.0), "no accuracy that both have reached"),
        (law_of(5.0, -0.1), (20.0, 45.0), "does not fall"),
    ],
)
def test_no_ratio_says_why(law, errors, note):
    found = compute_ratio(law, law_of(56.0, 0.17), errors)
    assert found[:4] == (None,) * 4
    assert note in found.note
