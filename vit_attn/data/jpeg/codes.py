"""Tables that read Huffman codes many bits at a time (ITU-T T.81, annexes C and F)."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from vit_attn.data.jpeg.compiled import compiled

WINDOW = 12  # bits that are looked up at once: the tables in use stay in the nearest caches
WINDOWS = 1 << WINDOW
LOOK, FAST, SKIP = range(3)
CODE_LIMIT, SYMBOL_SHIFT = range(2)
END_RUN = 128  # what the end of a block adds to the position in it: more than any run of zeros


class Codes(NamedTuple):
    """What reads n codes.

    tables[i, LOOK, w]: bits of the code that the window w starts with | symbol << 8; 0 if it is longer than a window.
    tables[i, FAST, w]: bits of code and value | run of zeros << 8 | value << 16; 0 if they are longer than a window.
    tables[i, SKIP, w]: bits of all codes and values that w holds | coefficients << 8 | (the block ends) << 24, or 0.
    long[i, :, b]: for codes of b bits, the first 16 bits that are none any more; and an index of `symbols` less its code.
    symbols[i]: in order of their codes.
    """

    tables: np.ndarray  # int32[n, 3, WINDOWS]
    long: np.ndarray  # int64[n, 2, 17]
    symbols: np.ndarray  # uint8[n, 256]


@lru_cache(64)
def make_codes(definitions: tuple[bytes, ...]) -> Codes | None:
    """For codes each given by 16 counts (of codes of 1 ... 16 bits) and the symbols, DC and AC in turn; None if one is none."""
    n = len(definitions)
    codes = Codes(np.zeros((n, 3, WINDOWS), np.int32), np.zeros((n, 2, 17), np.int64), np.zeros((n, 256), np.uint8))
    for i, definition in enumerate(definitions):
        counts, symbols = np.frombuffer(definition[:16], np.uint8), np.frombuffer(definition[16:], np.uint8)
        if counts.size < 16 or not counts.sum() <= symbols.size <= 256:
            return None
        codes.symbols[i, : symbols.size] = symbols
        if not _fill(counts, codes.symbols[i], i % 2 == 1, codes.tables[i], codes.long[i]):
            return None
    return codes


@compiled
def _fill(counts: Any, symbols: Any, is_ac: bool, tables: Any, long: Any) -> bool:
    """Fills in the tables of one code, which are zeros; False if there are too many codes of some length."""
    code = at = 0
    for bits in range(1, 17):
        long[SYMBOL_SHIFT, bits] = at - code
        for _ in range(counts[bits - 1]):
            if code >= 1 << bits:
                return False
            if bits <= WINDOW:
                first = code << (WINDOW - bits)
                tables[LOOK, first : first + (1 << (WINDOW - bits))] = bits | (np.int32(symbols[at]) << 8)
            code += 1
            at += 1
        long[CODE_LIMIT, bits] = code << (16 - bits)
        code <<= 1
    for window in range(WINDOWS):
        _fill_fast(tables, window, is_ac)
        if is_ac:
            _fill_skip(tables, window)
    return True


@compiled
def _fill_fast(tables: Any, window: int, is_ac: bool) -> None:
    entry = tables[LOOK, window]
    size, run = (entry >> 8) & 15, entry >> 12
    bits = (entry & 255) + size
    if entry == 0 or bits > WINDOW:
        return
    value = (window >> (WINDOW - bits)) & ((1 << size) - 1)
    if size and value < 1 << (size - 1):
        value -= (1 << size) - 1
    if is_ac and run == 0 and size == 0:
        run = END_RUN
    tables[FAST, window] = bits | (run << 8) | (value << 16)


@compiled
def _fill_skip(tables: Any, window: int) -> None:
    bits = coefficients = 0
    while True:
        entry = tables[LOOK, (window << bits) & (WINDOWS - 1)]
        symbol, more = entry >> 8, (entry & 255) + ((entry >> 8) & 15)
        if entry == 0 or bits + more > WINDOW:
            break
        bits += more
        if symbol == 0:  # the end counts as a coefficient, so that it cannot come behind the last one
            tables[SKIP, window] = bits | ((coefficients + 1) << 8) | (1 << 24)
            return
        coefficients += (symbol >> 4) + 1
    tables[SKIP, window] = bits | (coefficients << 8)
