"""TFRecord files, local or in a bucket, without tensorflow for local ones.

A record is its length (8 bytes, little endian), a checksum of that, the data, and a checksum of those; checksums are masked
CRC-32C, 4 bytes each (tensorflow/core/lib/io/record_writer.h). A reader of our own, and not tf.data's, so that a worker process
need not load tensorflow, that records in front are passed over unread, and that errors are told apart by their types.
"""

from collections.abc import Iterator
from struct import Struct
from typing import IO, Any

from etils import epath

from vit_attn.data.decode import BadImageError

HEAD = Struct("<QI")
FOOT = Struct("<I")
POLYNOMIAL = 0x82F63B78  # of CRC-32C, reflected
MASK = 0xA282EAD8

try:
    from google_crc32c import value as fast_crc
except ImportError:
    fast_crc = None


def read_records(path: str, offset: int, skip: int, take: int) -> tuple[list[bytes | BadImageError], int, int]:
    """(records, where the first one begins, where the last one ends): `take` records, after the `skip` from byte `offset` on.

    The checksums of lengths are verified, those of the data where google-crc32c is installed; an error stands for a damaged
    record, and for all behind the place where the length of one is damaged. Raises BadImageError for damage in front of the
    first record, and the errors of the file system.
    """
    with epath.Path(path).open("rb") as file:
        file.seek(offset)
        start = offset
        for _ in range(skip):
            start += HEAD.size + _length(file, path, start) + FOOT.size
            file.seek(start)
        records: list[bytes | BadImageError] = []
        end = start
        try:
            for _ in range(take):
                record, size = _record(file, path, end)
                records.append(record)
                end += size
        except BadImageError as error:
            records += [error] * (take - len(records))
    return records, start, end


def _record(file: IO[Any], path: str, at: int) -> tuple[bytes | BadImageError, int]:
    """(a record, its size in the file). Raises BadImageError where it cannot be said where the next one begins."""
    length = _length(file, path, at)
    data = _exactly(file, length, path, at)
    (checksum,) = FOOT.unpack(_exactly(file, FOOT.size, path, at))
    size = HEAD.size + length + FOOT.size
    if fast_crc is not None and _masked(fast_crc(data)) != checksum:
        return BadImageError(f"{path!r} is damaged: wrong checksum of the record at byte {at}"), size
    return data, size


def _length(file: IO[Any], path: str, at: int) -> int:
    head = _exactly(file, HEAD.size, path, at)
    length, checksum = HEAD.unpack(head)
    if _masked(_crc(head[:8])) != checksum:
        raise BadImageError(f"{path!r} is damaged: wrong checksum of the length at byte {at}")
    return length


def _exactly(file: IO[Any], size: int, path: str, at: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise BadImageError(f"{path!r} is damaged: it ends within the record at byte {at}")
    return data


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def _table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        yield value


TABLE = list(_table())


def _crc(data: bytes) -> int:
    """CRC-32C of a few bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
