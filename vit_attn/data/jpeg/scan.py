"""The bits of a scan -> pixels of its components, for a range of units (MCU); the blocks outside are only skipped."""

from typing import Any

import numpy as np

from vit_attn.data.jpeg.codes import CODE_LIMIT, END_RUN, FAST, LOOK, SKIP, SYMBOL_SHIFT, WINDOW, WINDOWS
from vit_attn.data.jpeg.compiled import compiled, pointer

PADDING = 512  # zeros behind the data: more bytes than a block can take
OK, BAD_CODE, BAD_BLOCK, TOO_SHORT = range(4)  # what `read_units` returns
TABLE, LONG, SYMBOLS, QUANTS = 3 * WINDOWS, 2 * 17, 256, 256  # numbers in a row of the arrays

u64 = np.uint64
C1, C2, C3, C4, C5, C6, C7 = (np.float32(0.5 * np.cos(np.pi * i / 16)) for i in range(1, 8))
MIDDLE, BLACK, WHITE = np.float32(128.5), np.float32(0), np.float32(255)  # 128 and what rounds


@compiled
def unstuff(encoded: Any, start: int, data: Any) -> Any:
    """Copies the bytes of a scan up to its end, without the zeros behind bytes 0xFF, then zeros; returns their number."""
    at, count, end = start, 0, encoded.size - 1
    source, to = pointer(encoded), pointer(data)
    while at < end:
        byte = source[at]
        if byte == 0xFF:
            if source[at + 1] != 0:
                break
            at += 1
        to[count] = byte
        count += 1
        at += 1
    data[count : count + PADDING] = 0
    return count


@compiled
def read_units(
    stream: Any, count: int, span: Any, blocks: Any, strips: Any, codes: Any, quants: Any, places: Any, out: Any, planes: Any
) -> int:
    """Decodes units x0 <= x < x1, y0 <= y < y1 into `planes`; returns OK or what is wrong.

    span: units in a row, x0, x1, y0, y1.
    blocks[b]: component, DC code, AC code, first column of `out` and the step in it, for block b of a unit.
    strips[s]: first column of `out`, columns, first word of `planes`, words in a row and rows in a unit, for a row of blocks.
    quants[c, k]: divisors in the order of the bits, zeros from 64 on; places[k]: their rows of out, 64 from 64 on.
    out[65, columns]: zeros; the coefficients of a row of units, and a row for what is none.
    """
    data, tables, long, symbols = pointer(stream), pointer(codes[0]), pointer(codes[1]), pointer(codes[2])
    quant, place, to, unit = pointer(quants), pointer(places), pointer(out), pointer(blocks)
    units, x0, x1, y0, y1 = span
    stride, in_unit = out.shape[1], 5 * blocks.shape[0]
    level_array = np.zeros(4, np.int64)
    level = pointer(level_array)  # the DC coefficient of each component, of which the bits hold the change
    at = have = 0
    bits = u64(0)
    for y in range(y1):
        for x in range(units):
            wanted = y >= y0 and x >= x0 and x < x1
            for b in range(0, in_unit, 5):
                if at > count + 8:
                    return TOO_SHORT
                c, dc_code, ac_code = unit[b], unit[b + 1], unit[b + 2]
                at, bits, have, change = _read_change(data, at, bits, have, dc_code, tables, long, symbols)
                if have < 0:
                    return BAD_CODE
                level[c] += change
                if wanted:
                    column = unit[b + 3] + (x - x0) * unit[b + 4]
                    to[column] = np.float32(level[c]) * quant[QUANTS * c]
                    at, bits, have, valid = _read_block(
                        data, at, bits, have, ac_code, tables, long, symbols, quant, QUANTS * c, place, to, column, stride
                    )
                else:
                    at, bits, have, valid = _skip_block(data, at, bits, have, ac_code, tables, long, symbols)
                if not valid:
                    return BAD_BLOCK
        if 8 * at - have > 8 * count:
            return TOO_SHORT
        if y >= y0:
            for s in range(strips.shape[0]):
                first = strips[s, 2] + (y - y0) * strips[s, 4] * strips[s, 3]
                _to_pixels(out, strips[s, 0], strips[s, 1], planes, first, strips[s, 3])
            out[:] = 0
    return OK


@compiled
def _load(data: Any, at: Any) -> Any:
    """64 bits from byte `at` on, the first one uppermost; the compiler makes one load of it."""
    upper = (u64(data[at]) << u64(56)) | (u64(data[at + 1]) << u64(48)) | (u64(data[at + 2]) << u64(40))
    middle = (u64(data[at + 3]) << u64(32)) | (u64(data[at + 4]) << u64(24)) | (u64(data[at + 5]) << u64(16))
    return upper | middle | (u64(data[at + 6]) << u64(8)) | u64(data[at + 7])


@compiled
def _look_up(bits: Any, code: Any, tables: Any, long: Any, symbols: Any) -> Any:
    """Bits of the code that `bits` starts with | symbol << 8; 0 if there is none."""
    entry = np.int64(tables[TABLE * code + LOOK * WINDOWS + np.int64(bits >> u64(64 - WINDOW))])
    if entry:
        return entry
    first = np.int64(bits >> u64(48))
    for length in range(WINDOW + 1, 17):
        if first < long[LONG * code + 17 * CODE_LIMIT + length]:
            index = (first >> (16 - length)) + long[LONG * code + 17 * SYMBOL_SHIFT + length]
            return length | (np.int64(symbols[SYMBOLS * code + (index & 255)]) << 8)
    return 0


@compiled
def _signed(bits: Any, size: Any) -> Any:
    """The number that the first `size` bits stand for."""
    if size == 0:
        return 0
    value = np.int64(bits >> u64(64 - size))
    return value - (1 << size) + 1 if value < 1 << (size - 1) else value


@compiled
def _read_change(data: Any, at: Any, bits: Any, have: Any, code: Any, tables: Any, long: Any, symbols: Any) -> Any:
    """Reads the first coefficient of a block: (at, bits, have, its change from the block before); have < 0: not valid."""
    bits |= _load(data, at) >> u64(have)
    at += (63 - have) >> 3
    have |= 56
    entry = _look_up(bits, code, tables, long, symbols)
    size = (entry >> 8) & 15
    change = _signed(bits << u64(entry & 255), size)
    taken = (entry & 255) + size
    return at, bits << u64(taken), have - taken if entry else -1, change


@compiled
def _read_block(
    data: Any, at: Any, bits: Any, have: Any, code: Any, tables: Any, long: Any, symbols: Any, quant: Any, first_quant: Any,
    place: Any, to: Any, column: Any, stride: Any
) -> Any:  # fmt: skip
    """Reads the other coefficients and writes them, times `quant`: (at, bits, have, whether they are valid)."""
    k: Any = 1
    fast = TABLE * code + FAST * WINDOWS
    while k < 64:
        if have < 32:
            bits |= _load(data, at) >> u64(have)
            at += (63 - have) >> 3
            have |= 56
        entry: Any = np.int64(tables[fast + np.int64(bits >> u64(64 - WINDOW))])
        if entry:
            taken, value = entry & 255, entry >> 16
            k += (entry >> 8) & 255
        else:
            entry = _look_up(bits, code, tables, long, symbols)
            if entry == 0:
                return at, bits, have, False
            size = (entry >> 8) & 15
            taken, value = (entry & 255) + size, _signed(bits << u64(entry & 255), size)
            k += entry >> 12 if entry >> 8 else END_RUN
        bits <<= u64(taken)
        have -= taken
        to[place[k] * stride + column] = np.float32(value) * quant[first_quant + k]
        k += 1
    return at, bits, have, k == 64 or k > END_RUN


@compiled
def _skip_block(data: Any, at: Any, bits: Any, have: Any, code: Any, tables: Any, long: Any, symbols: Any) -> Any:
    """The same without writing, some at a time."""
    k: Any = 1
    skip = TABLE * code + SKIP * WINDOWS
    while k < 64:
        if have < 32:
            bits |= _load(data, at) >> u64(have)
            at += (63 - have) >> 3
            have |= 56
        entry: Any = np.int64(tables[skip + np.int64(bits >> u64(64 - WINDOW))])
        coefficients = (entry >> 8) & 0xFFFF
        if coefficients and k + coefficients <= 64:
            bits <<= u64(entry & 255)
            have -= entry & 255
            k = 64 if entry >> 24 else k + coefficients
        else:
            entry = _look_up(bits, code, tables, long, symbols)
            if entry == 0:
                return at, bits, have, False
            taken = (entry & 255) + ((entry >> 8) & 15)
            bits <<= u64(taken)
            have -= taken
            k = k + (entry >> 12) + 1 if entry >> 8 else 64
    return at, bits, have, k == 64


@compiled
def _eight(s0: Any, s1: Any, s2: Any, s3: Any, s4: Any, s5: Any, s6: Any, s7: Any) -> Any:
    """The inverse cosine transform of eight numbers, by the symmetry of cosines of even and of odd frequency."""
    mean, turn = (s0 + s4) * C4, (s0 - s4) * C4
    slow, fast = s2 * C2 + s6 * C6, s2 * C6 - s6 * C2
    even0, even1, even2, even3 = mean + slow, turn + fast, turn - fast, mean - slow
    odd0 = (C1 * s1 + C3 * s3) + (C5 * s5 + C7 * s7)
    odd1 = (C3 * s1 - C7 * s3) - (C1 * s5 + C5 * s7)
    odd2 = (C5 * s1 - C1 * s3) + (C7 * s5 + C3 * s7)
    odd3 = (C7 * s1 - C5 * s3) + (C3 * s5 - C1 * s7)
    return even0 + odd0, even1 + odd1, even2 + odd2, even3 + odd3, even3 - odd3, even2 - odd2, even1 - odd1, even0 - odd0


@compiled
def _byte(value: Any) -> Any:
    return u64(np.uint32(min(max(value + MIDDLE, BLACK), WHITE)))


@compiled
def _to_pixels(out: Any, first: Any, columns: Any, planes: Any, word: Any, stride: Any) -> None:
    """Coefficients out[:, first ...] of a row of blocks -> eight rows of bytes, eight in a word of `planes`.

    Neighbouring columns are neighbours in memory: so the compiler takes many blocks at a time.
    """
    for k in range(8):
        for column in range(first, first + columns):
            i = u64(column)
            a, b, c, d, e, f, g, h = _eight(
                out[u64(k), i], out[u64(8 + k), i], out[u64(16 + k), i], out[u64(24 + k), i],
                out[u64(32 + k), i], out[u64(40 + k), i], out[u64(48 + k), i], out[u64(56 + k), i],
            )  # fmt: skip
            out[u64(k), i], out[u64(8 + k), i], out[u64(16 + k), i], out[u64(24 + k), i] = a, b, c, d
            out[u64(32 + k), i], out[u64(40 + k), i], out[u64(48 + k), i], out[u64(56 + k), i] = e, f, g, h
    for row in range(8):
        k, here = 8 * row, word + row * stride
        for column in range(columns):
            i = u64(first + column)
            a, b, c, d, e, f, g, h = _eight(
                out[u64(k), i], out[u64(k + 1), i], out[u64(k + 2), i], out[u64(k + 3), i],
                out[u64(k + 4), i], out[u64(k + 5), i], out[u64(k + 6), i], out[u64(k + 7), i],
            )  # fmt: skip
            lower = _byte(a) | (_byte(b) << u64(8)) | (_byte(c) << u64(16)) | (_byte(d) << u64(24))
            upper = (_byte(e) << u64(32)) | (_byte(f) << u64(40)) | (_byte(g) << u64(48)) | (_byte(h) << u64(56))
            planes[u64(here + column)] = lower | upper
