"""What a JPEG says of itself before its pixels: size, components, quantisation and Huffman codes."""

import struct
from dataclasses import dataclass

BASELINE, RESTARTS, SCAN, QUANT, HUFFMAN, ADOBE = 0xC0, 0xDD, 0xDA, 0xDB, 0xC4, 0xEE
OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {HUFFMAN, 0xC8, 0xCC}
NO_LENGTH = frozenset((0x01, *range(0xD0, 0xDA), 0xFF))
ADOBE_YCC = 1


@dataclass(frozen=True)
class Component:
    across: int  # blocks in a unit (MCU), side by side
    down: int  # and one above the other
    quant: bytes  # 64 divisors, in zigzag order
    dc_code: bytes  # 16 counts of codes by length, then the symbols
    ac_code: bytes


@dataclass(frozen=True)
class Head:
    height: int
    width: int
    components: tuple[Component, ...]  # gray, or Y, Cb, Cr
    scan_start: int  # of the entropy-coded bytes


def read_head(encoded: bytes) -> Head | None:
    """The head of a JPEG of the common kind, else None: that is, for the others and for damaged ones.

    Common is: baseline, all in one scan, no restarts, gray or YCbCr with one chroma block a unit, at most 2 x 2 of luma.
    """
    try:
        return _read_head(encoded)
    except (IndexError, KeyError, ValueError, struct.error):
        return None


def _read_head(encoded: bytes) -> Head | None:
    quants: dict[int, bytes] = {}
    codes: dict[int, bytes] = {}
    frame = b""
    at = 2
    while True:
        marker = encoded[at + 1]
        if encoded[at] != 0xFF or marker in NO_LENGTH or marker in OTHER_FRAMES:
            return None
        end = at + 2 + struct.unpack_from(">H", encoded, at + 2)[0]
        segment = encoded[at + 4 : end]
        at = end
        if marker == QUANT:
            quants |= _quants(segment)
        elif marker == HUFFMAN:
            codes |= _codes(segment)
        elif marker == BASELINE:
            frame = segment
        elif (marker == RESTARTS and segment != b"\0\0") or (marker == ADOBE and segment[11] != ADOBE_YCC):
            return None
        elif marker == SCAN:
            return _head(frame, segment, quants, codes, end)


def _quants(segment: bytes) -> dict[int, bytes]:
    """Number -> table; a table of 16 bits has a number above 15 here, which no component names."""
    found = {}
    while segment:
        length = 129 if segment[0] >> 4 else 65
        found[segment[0]] = segment[1:length]
        if len(segment) < length:
            raise ValueError("the table is cut off")
        segment = segment[length:]
    return found


def _codes(segment: bytes) -> dict[int, bytes]:
    """Number (above 15: of AC) -> code."""
    found = {}
    while segment:
        length = 17 + sum(segment[1:17])
        found[segment[0]] = segment[1:length]
        if len(segment) < length:
            raise ValueError("the table is cut off")
        segment = segment[length:]
    return found


def _head(frame: bytes, scan: bytes, quants: dict[int, bytes], codes: dict[int, bytes], scan_start: int) -> Head | None:
    bits, height, width, count = struct.unpack_from(">BHHB", frame)
    if bits != 8 or not height or not width or count not in (1, 3) or scan[0] != count or scan[-3:-1] != b"\0\x3f":
        return None
    components = []
    for number in range(count):
        name, sampling, quant = frame[6 + 3 * number : 9 + 3 * number]
        scanned, code = scan[1 + 2 * number : 3 + 2 * number]
        if scanned != name:
            return None
        components.append(Component(sampling >> 4, sampling & 15, quants[quant], codes[code >> 4], codes[16 | code & 15]))
    if count == 1:  # a scan of one component has units of one block, whatever its sampling
        first = components[0]
        return Head(height, width, (Component(1, 1, first.quant, first.dc_code, first.ac_code),), scan_start)
    luma, *chroma = components
    common = luma.across in (1, 2) and luma.down in (1, 2) and all(c.across == c.down == 1 for c in chroma)
    rgb = frame[6::3] == b"RGB"
    return Head(height, width, tuple(components), scan_start) if common and not rgb else None
