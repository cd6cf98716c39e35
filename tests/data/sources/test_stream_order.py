from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from vit_attn.data.sources.stream_order import LANES, StreamOrder

lengths = st.lists(st.integers(1, 23), min_size=1, max_size=37)
windows = st.integers(1, 100)
seeds = st.integers(0, 2**32 - 1)


def epoch(order: StreamOrder, number: int, seed: int) -> list[tuple[int, int]]:
    length = sum(order.lengths)
    places = [order.place(number * length + at, seed) for at in range(length)]
    assert {place.epoch for place in places} == {number}
    return [(place.shard, place.into) for place in places]


@settings(max_examples=12, deadline=None)
@given(lengths, windows, seeds, st.integers(0, 10**6))
def test_an_epoch_holds_every_example_exactly_once(lengths: list[int], window: int, seed: int, number: int) -> None:
    expected = [(shard, into) for shard, length in enumerate(lengths) for into in range(length)]
    assert sorted(epoch(StreamOrder(lengths, window), number, seed)) == expected


@settings(max_examples=12, deadline=None)
@given(lengths, windows, seeds)
def test_whoever_holds_a_block_and_the_next_can_serve_the_stream(lengths: list[int], window: int, seed: int) -> None:
    """Blocks are no longer than the window, and each shard is read from front to back, in one block after the other."""
    order = StreamOrder(lengths, window)
    length = sum(lengths)
    places = [order.place(at, seed) for at in range(min(2 * length, 300))]
    begun: dict[tuple[int, int], int] = {}
    for place in places:
        run = order.run_of(place.shard, place.into)
        start, stop = order.bounds(run)
        assert start <= place.into < stop
        held = order.runs_from(place, seed)
        assert run in held[:LANES]
        block = sum(order.size(each) for each in order.epoch(seed, place.epoch).blocks[place.block])
        assert block <= max(window, order.lanes)
        begun.setdefault((place.epoch, place.shard), -1)
        assert run[1] - begun[place.epoch, place.shard] in (0, 1)
        begun[place.epoch, place.shard] = run[1]
    for place, after in pairwise(places):
        assert order.run_of(after.shard, after.into) in order.runs_from(place, seed)


def test_blocks_mix_many_files_and_fill_the_window() -> None:
    order = StreamOrder([101] * 40, 128)
    blocks = order.epoch(0, 0).blocks
    assert all(12 <= len(block) <= LANES for block in blocks)  # 40 files in groups of 13 and 14, not 16, 16 and 8
    sizes = [sum(order.size(run) for run in block) for block in blocks]
    assert min(sizes) > 100


def test_epochs_and_seeds_have_their_own_orders() -> None:
    order = StreamOrder([11, 13, 17], 16)
    orders = {tuple(epoch(order, number, seed)) for number in range(3) for seed in (0, 1, 2**40)}
    assert len(orders) == 9
    first_files = {order.place(41 * number, 0).shard for number in range(20)}
    assert first_files == {0, 1, 2}


def test_the_order_stays_what_it_was() -> None:
    """A run that is resumed after an update must see the same examples."""
    order = StreamOrder([5, 4, 4], 6)
    assert epoch(order, 0, 0) == FIRST
    assert epoch(order, 3, 7) == OTHER


FIRST = [(1, 1), (2, 0), (2, 1), (1, 0), (0, 0), (0, 1), (1, 2), (1, 3), (2, 2), (0, 2), (2, 3), (0, 4), (0, 3)]
OTHER = [(1, 1), (0, 0), (2, 1), (2, 0), (1, 0), (2, 3), (0, 2), (1, 3), (0, 1), (2, 2), (1, 2), (0, 4), (0, 3)]
