"""How the attention of a batch is divided among the programs of a kernel."""

from dataclasses import dataclass

LANES = 128  # of a vector register; the last axis of a block is a multiple of it
SUBLANES = 16  # rows of a tile of bfloat16; of float32 8
MOST_ROWS = 1024  # of a query block and of a key block: their float32 logits take 4 MiB
ROWS_OF_IMAGES = 1024  # that the images of one program have together


@dataclass(frozen=True)
class Tiles:
    """Images of one program, query rows of one program, key rows that it takes at a time."""

    images: int
    queries: int
    keys: int


def choose(batch: int, queries: int, keys: int) -> Tiles:
    """All of a short sequence at once, several images a program; of a long one equal blocks."""
    rows_q, rows_k = block(queries), block(keys)
    whole = rows_q == queries and rows_k == keys
    most = max(1, ROWS_OF_IMAGES // max(queries, keys)) if whole else 1
    images = next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
    return Tiles(images, rows_q, rows_k)


def block(length: int) -> int:
    """Rows of a block: all of them or the least number, a multiple of SUBLANES, that makes as few blocks as MOST_ROWS allows."""
    if length <= MOST_ROWS:
        return length
    rows = -(-length // -(-length // MOST_ROWS))
    return -(-rows // SUBLANES) * SUBLANES
