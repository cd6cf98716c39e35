import io
import random
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c

from vit_attn.data.decode import BadImageError
from vit_attn.data.sources import tfrecord_file
from vit_attn.data.sources.tfrecord_file import read_records

RECORDS = [random.Random(i).randbytes(size) for i, size in enumerate([0, 1, 5000, 13, 100_000, 300_000, 7])]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
        for record in RECORDS:
            writer.write(record)
    return tmp_path / "records"


def starts(path: Path) -> list[int]:
    """Where each record begins, and where the file ends."""
    places = [0]
    for record in RECORDS:
        places.append(places[-1] + 16 + len(record))
    assert places[-1] == path.stat().st_size
    return places


@pytest.mark.parametrize(("first", "last"), [(0, 7), (0, 1), (2, 5), (6, 7)])
def test_reading_what_tensorflow_wrote(path: Path, first: int, last: int) -> None:
    at = starts(path)
    assert read_records(str(path), 0, first, last - first) == (RECORDS[first:last], at[first], at[last])
    if first > 1:
        assert read_records(str(path), at[1], first - 1, last - first) == (RECORDS[first:last], at[first], at[last])


def test_records_in_front_are_passed_over_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            nonlocal read
            read += (got := super().readinto(buffer) or 0)
            return got

    class CountingPath:
        def __init__(self, path: str) -> None:
            self.path = path

        def open(self, mode: str) -> Any:
            return io.BufferedReader(Counting(self.path))

    monkeypatch.setattr(tfrecord_file.epath, "Path", CountingPath)
    assert read_records(str(path), 0, 6, 1)[0] == RECORDS[6:]
    assert read < 60_000  # of 405,000


def test_the_checksum_is_that_of_others() -> None:
    for data in (b"", b"123456789", RECORDS[2]):
        assert tfrecord_file._crc(data) == crc32c(data)


def test_a_damaged_length_spoils_the_rest_of_the_file(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[starts(path)[3] + 1] ^= 1
    path.write_bytes(data)
    records, _, _ = read_records(str(path), 0, 0, 7)
    assert records[:3] == RECORDS[:3]
    assert all(isinstance(record, BadImageError) and "wrong checksum of the length" in str(record) for record in records[3:])
    with pytest.raises(BadImageError, match="wrong checksum of the length at byte"):
        read_records(str(path), 0, 4, 1)


def test_a_damaged_record_spoils_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord_file, "fast_crc", crc32c)  # as google-crc32c computes it
    assert read_records(str(path), 0, 0, 4)[0] == RECORDS[:4]
    data = bytearray(path.read_bytes())
    data[starts(path)[2] + 12 + 100] ^= 1
    path.write_bytes(data)
    records, _, _ = read_records(str(path), 0, 0, 4)
    assert isinstance(records[2], BadImageError)
    assert f"{str(path)!r} is damaged: wrong checksum of the record at byte {starts(path)[2]}" in str(records[2])
    assert [records[i] for i in (0, 1, 3)] == [RECORDS[i] for i in (0, 1, 3)]


def test_a_file_that_is_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: starts(path)[5] + 1000])
    records, _, _ = read_records(str(path), 0, 0, 7)
    assert records[:5] == RECORDS[:5]
    assert all(isinstance(record, BadImageError) and "it ends within the record" in str(record) for record in records[5:])
