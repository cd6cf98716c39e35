from itertools import pairwise

import pytest

from vit_attn.data.sources.order import example_at, permutation, shuffled


def epoch(number: int, seed: int, length: int) -> list[int]:
    examples = [example_at(number * length + place, seed, length) for place in range(length)]
    assert {epoch for epoch, _ in examples} == {number}
    return [index for _, index in examples]


@pytest.mark.parametrize("length", [1, 2, 13, 997])
@pytest.mark.parametrize("number", [0, 1, 10**9])
def test_an_epoch_holds_every_example_exactly_once(length: int, number: int) -> None:
    assert sorted(epoch(number, 5, length)) == list(range(length))


def test_the_arithmetic_is_that_of_grain() -> None:
    from grain.experimental import index_shuffle

    for length in (997, 1_281_167):
        assert all(
            shuffled(place, length, 7) == index_shuffle(place, length - 1, 7, 4) for place in range(0, length, length // 50)
        )


def test_epochs_and_seeds_have_their_own_orders() -> None:
    orders = {tuple(epoch(number, seed, 997)) for number in range(4) for seed in (0, 1, 2, 2**40)}
    assert len(orders) == 16  # in particular, epoch 1 of seed 0 is not epoch 0 of seed 1


def test_an_order_is_not_close_to_sorted() -> None:
    order = epoch(0, 0, 9973)
    rising = sum(b > a for a, b in pairwise(order))
    assert 0.45 < rising / len(order) < 0.55
    assert sum(a == i for i, a in enumerate(order)) < 10  # expected: 1


def test_the_order_stays_what_it_was() -> None:
    """A run that is resumed after an update of grain or numpy must see the same examples."""
    assert epoch(0, 0, 13) == [12, 8, 11, 7, 4, 2, 1, 0, 3, 6, 10, 9, 5]
    assert epoch(3, 7, 13) == [9, 12, 10, 0, 2, 11, 3, 7, 6, 5, 4, 1, 8]


@pytest.mark.parametrize("length", [1, 2, 13, 997])
def test_a_permutation_at_once(length: int) -> None:
    drawn = [permutation(length, seed, epoch) for seed in (0, 1, 2**40) for epoch in (0, 1)]
    assert all(sorted(each) == list(range(length)) for each in drawn)
    assert length < 13 or len({tuple(each) for each in drawn}) == 6
    assert permutation(7, 3, 5) == [6, 2, 1, 5, 3, 0, 4]
