"""Lists of points, made and combined."""

import pytest

from configs.grid import constant, cross, only, product, seeds, zipped


def test_product():
    assert product(h=["relu", "gelu"], alpha=[0, 1]) == [
        {"h": "relu", "alpha": 0},
        {"h": "relu", "alpha": 1},
        {"h": "gelu", "alpha": 0},
        {"h": "gelu", "alpha": 1},
    ]
    assert product(h=[], alpha=[0, 1]) == []
    assert product() == [{}]


def test_zipped():
    assert zipped(gamma=[0, -1], zeta=[2, 1]) == [{"gamma": 0, "zeta": 2}, {"gamma": -1, "zeta": 1}]
    with pytest.raises(ValueError, match="shorter"):
        zipped(gamma=[0, -1], zeta=[2])


def test_cross_takes_every_pair_and_the_later_value():
    assert cross([{"a": 1}, {"a": 2, "b": 0}], [{"b": 3}, {"c": 4}]) == [
        {"a": 1, "b": 3},
        {"a": 1, "c": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 0, "c": 4},
    ]


def test_constant_only_and_seeds_leave_what_they_are_given():
    points = product(h=["relu", "gelu"])
    assert constant(points, alpha=1) == [{"h": "relu", "alpha": 1}, {"h": "gelu", "alpha": 1}]
    assert only(points, lambda point: point["h"] == "gelu") == [{"h": "gelu"}]
    assert seeds(points, 2) == product(h=["relu", "gelu"], seed=[0, 1])
    assert points == [{"h": "relu"}, {"h": "gelu"}]
    with pytest.raises(ValueError, match="seeds=0 must be at least 1"):
        seeds(points, 0)
