"""Files that vanish and come back, stay away, or are damaged: of all three kinds of source, with real files."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tfds_sets import encode, write_numbered

from vit_attn.data.decode import BadImageError
from vit_attn.data.sources import faults
from vit_attn.data.sources.faults import UnreachableError, may_pass, persistent
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.spec.data import SetSpec

KINDS = ["array_record", "tfrecord", "folder"]


@pytest.fixture(params=KINDS)
def source_and_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[float], Source], Path]:
    """(opens a source with a timeout, the file of its example 1)."""
    if request.param == "folder":
        import numpy as np

        (tmp_path / "set" / "train" / "a").mkdir(parents=True)
        for i in range(3):
            (tmp_path / "set" / "train" / "a" / f"{i}.png").write_bytes(encode(np.full((8, 8), i, np.uint8)))
        data = SetSpec(str(tmp_path / "set"), split="train")
        file = tmp_path / "set" / "train" / "a" / "1.png"
    else:
        directory = write_numbered(tmp_path / "set", "numbers", {"train": 3}, file_format=request.param)
        data = SetSpec("numbers", None, str(tmp_path / "set"), "train", "image", "label", 1)
        (file,) = directory.glob("*record-*")
    return lambda seconds: open_source(data, None, timeout_seconds=seconds), file


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_vanishes_and_comes_back_is_waited_for(source_and_file: tuple[Callable[[float], Source], Path], what: str) -> None:
    open_it, file = source_and_file
    source = open_it(60.0)
    expected = open_it(60.0)[1]
    moved = file if what == "file" else file.parent
    aside = moved.with_name("aside")
    moved.rename(aside)
    threading.Timer(0.7, lambda: aside.rename(moved)).start()
    assert source[1] == expected


def test_what_stays_away_is_named(source_and_file: tuple[Callable[[float], Source], Path]) -> None:
    open_it, file = source_and_file
    source = open_it(0.3)
    file.rename(file.with_name("aside"))
    with pytest.raises(UnreachableError) as caught:
        source[1]
    assert str(file) in str(caught.value)
    assert "could not be read for 0.3 s (config.data.timeout_seconds)" in str(caught.value)
    assert "No such file or directory" in str(caught.value)
    assert "\n" not in str(caught.value)
    file.with_name("aside").rename(file)
    assert source[1]["image"]  # a later read is a new one


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_record_is_not_waited_for(
    source_and_file: tuple[Callable[[float], Source], Path], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_it, file = source_and_file
    if file.suffix == ".png":
        pytest.skip("who decodes an image file finds it damaged")
    source = open_it(60.0)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 3]
    else:
        data[: len(data) // 2] = bytes(255 - byte for byte in data[: len(data) // 2])
    file.write_bytes(data)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(BadImageError):
        source[2]


def test_a_directory_in_the_place_of_a_file_is_not_waited_for(
    source_and_file: tuple[Callable[[float], Source], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_it, file = source_and_file
    source = open_it(60.0)
    file.unlink()
    file.mkdir()
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(BadImageError, match="s a directory"):
        source[1]


def test_which_errors_may_pass() -> None:
    for number in (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOENT, errno.ENOTCONN, errno.ETIMEDOUT, errno.EMFILE):
        assert may_pass(OSError(number, os.strerror(number)))
        assert may_pass(RuntimeError(f"open() failed: {os.strerror(number)}; opening /data/x"))
    assert may_pass(RuntimeError("pread() failed: Input/output error; reading /data/x; at byte 9"))
    assert may_pass(tf.errors.UnavailableError(None, None, "503"))
    assert may_pass(tf.errors.PermissionDeniedError(None, None, "403"))
    assert not may_pass(tf.errors.DataLossError(None, None, "corrupted record"))
    assert not may_pass(tf.errors.InvalidArgumentError(None, None, "no"))
    assert not may_pass(RuntimeError("Corrupted Riegeli/records file: block header hash mismatch"))
    assert not may_pass(IsADirectoryError(errno.EISDIR, "Is a directory"))
    assert not may_pass(ValueError("a mistake"))


def test_pauses_double_up_to_ten_seconds_and_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(faults.time, "sleep", sleep)
    monkeypatch.setattr(faults.time, "monotonic", lambda: now[0])

    def read() -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    with pytest.raises(UnreachableError, match=r"for 40 s .*TimeoutError: Connection timed out"):
        persistent(read, "/data/x", 40.0)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 7.3])
