"""gs://, with the clients of tensorflow and of array_record, and a bucket on this machine."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagenet_sets import write_folder
from tfds_sets import write_numbered

from vit_attn.data.sources import open as opening
from vit_attn.data.sources.faults import UnreachableError
from vit_attn.data.sources.open import open_source
from vit_attn.spec.data import SetSpec
from vit_attn.spec.errors import UserError

FORMATS = ("array_record", "tfrecord")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder whose files gs://bucket has."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    here, folder = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("bucket")
    names = "subjectAltName=DNS:www.googleapis.com,DNS:storage.googleapis.com"
    made = [
        "-keyout",
        str(here / "key"),
        "-out",
        str(here / "certificate"),
        "-days",
        "2",
        "-subj",
        "/CN=bucket",
        "-addext",
        names,
    ]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    for file_format in FORMATS:
        write_numbered(folder / file_format, "numbers", {"train": 101, "test": 13}, file_format=file_format, shards=3)
    write_folder(folder / "images", {"train": {"a": 5, "b": 4}}, images=lambda count, seed: [b"%d" % i for i in range(count)])
    program = [sys.executable, str(Path(__file__).with_name("fake_bucket.py")), str(folder), str(here / "certificate")]
    with pytest.MonkeyPatch.context() as patch:
        server = subprocess.Popen([*program, str(here / "key")], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            patch.setenv("https_proxy", address)
            patch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
            patch.setenv("CURL_CA_BUNDLE", str(here / "certificate"))
            patch.setenv("NO_GCE_CHECK", "true")  # or tensorflow asks the machine for a token
            yield folder
        finally:
            server.kill()
            server.wait()


def numbers(file_format: str, root: str | Path = "gs://bucket", split: str = "train") -> SetSpec:
    return SetSpec("numbers", None, f"{root}/{file_format}", split, "image", "label", 1)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("split", ["train", "train[20:50]"])
def test_a_set_in_a_bucket_is_read_like_a_local_one(bucket: Path, file_format: str, split: str) -> None:
    there = open_source(numbers(file_format, split=split), None, stream_window=30)
    here = open_source(numbers(file_format, bucket, split), None, stream_window=30)
    assert there.name == here.name
    assert [there[i] for i in range(len(there))] == [here[i] for i in range(len(here))]
    places = [there.order(position, 3) for position in range(len(there))]
    assert places == [here.order(position, 3) for position in range(len(here))]
    assert [there[index] for _, index in places] == [here[index] for _, index in places]
    assert f"of the file 'gs://bucket/{file_format}/numbers/1.0.0/numbers-train." in there.where(0)


def test_a_folder_in_a_bucket_is_read_like_a_local_one(bucket: Path) -> None:
    there, here = (
        open_source(SetSpec(name, split="train[:70%]"), None) for name in ("gs://bucket/images", str(bucket / "images"))
    )
    assert [there[i] for i in range(len(there))] == [here[i] for i in range(len(here))]
    assert len(there) == 6
    assert there.label_names == ["a", "b"]
    assert "(the file 'gs://bucket/images/train/a/a_" in there.where(0)


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_object_that_is_gone_for_a_while(bucket: Path, file_format: str) -> None:
    shard = next((bucket / file_format / "numbers" / "1.0.0").glob("*test*-00000-of-*"))
    patient, hasty = (open_source(numbers(file_format, split="test"), None, timeout_seconds=seconds) for seconds in (60, 0.3))
    expected = open_source(numbers(file_format, bucket, "test"), None)[0]
    aside = shard.rename(shard.with_name("aside"))
    with pytest.raises(UnreachableError, match=rf"'gs://bucket/.*{shard.name}' could not be read for 0.3 s"):
        hasty[0]
    with pytest.raises(UserError, match=r"is incomplete: its file 'gs://bucket/.*' is missing"):
        open_source(numbers(file_format, split="test"), None)
    threading.Timer(0.5, lambda: aside.rename(shard)).start()
    assert patient[0] == expected


def test_what_is_not_in_the_bucket(bucket: Path) -> None:
    with pytest.raises(UserError, match=r"data set 'mnist' is not prepared in config.data.data_dir='gs://bucket/tfrecord'"):
        open_source(dataclasses.replace(numbers("tfrecord"), name="mnist"), None)
    with pytest.raises(UserError, match=r"data set 'numbers' is not prepared in config.data.data_dir='gs://bucket/nothing'"):
        open_source(numbers("nothing"), None)
    with pytest.raises(UserError, match=r"config.data.name='gs://bucket/none'"):
        open_source(SetSpec("gs://bucket/none", split="train"), None)


def test_the_command_that_converts_a_set_in_a_bucket_works(
    bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_told", set())
    monkeypatch.setenv("HOME", str(tmp_path))
    capsys.readouterr()
    open_source(numbers("tfrecord"), None)
    command = capsys.readouterr().err.partition("`python ")[2].partition("`")[0]
    subprocess.run([sys.executable, *shlex.split(command)], check=True, capture_output=True, env=dict(os.environ))
    copy = open_source(numbers("", tmp_path / "tensorflow_datasets"), None)
    assert sorted(copy[i]["labels"][0] for i in range(len(copy))) == list(range(101))
