"""Checkpoints in gs://, by the clients of tensorflow (epath) and of tensorstore, and a bucket on this machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from sharded_states import like_of, numbers, state_of
from trainer_runs import command, run_here, without_speed

from vit_attn.spec.run import LoopSpec
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.paths import paths_of
from vit_attn.store.place import place_of
from vit_attn.store.restore import BadCheckpointError
from vit_attn.store.run_dir import RunDir


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    here = tmp_path_factory.mktemp("keys")
    names = "subjectAltName=DNS:www.googleapis.com,DNS:storage.googleapis.com"
    made = ["-keyout", here / "key", "-out", here / "certificate", "-days", "2", "-subj", "/CN=bucket", "-addext", names]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    program = [sys.executable, str(Path(__file__).with_name("writable_bucket.py")), here / "certificate", here / "key"]
    with pytest.MonkeyPatch.context() as patch:
        server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        try:
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            patch.setenv("https_proxy", address)
            patch.setenv("CURL_CA_BUNDLE", str(here / "certificate"))
            patch.setenv("NO_GCE_CHECK", "true")  # or tensorflow asks the machine for a token
            patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
            patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
            patch.setenv("no_proxy", "127.0.0.1")
            yield epath.Path("gs://bucket")
        finally:
            server.kill()
            server.wait()


def test_saved_read_refused_deleted(bucket, tmp_path):
    loop = LoopSpec(ckpt_keep=2, ckpt_dir="gs://bucket/runs/{name}")
    values, run_dir = numbers(), RunDir(tmp_path / "one")
    checkpoints = Checkpoints(run_dir, loop)
    for step in (1, 2, 3):
        checkpoints.save(step, state_of("data and fsdp", values), {"step": step}, rows=[{"step": step}])
    checkpoints.close()
    again = Checkpoints(run_dir, loop)
    assert again.steps() == [2, 3]
    state, info = again.restore(3, like_of("fsdp and model"))
    assert info["step"] == 3
    for name, value in values.items():
        (leaf,) = (leaf for path, leaf in paths_of(state).items() if name in path)
        assert np.asarray(leaf).tobytes() == value.tobytes()
    assert again.rows(2) == [{"step": 2}]
    file = max((bucket / "runs/one/checkpoints/3/state/d").iterdir(), key=lambda file: file.stat().length)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BadCheckpointError):
        again.restore(3, like_of("fsdp"))
    again.set_aside(3)
    assert (bucket / "runs/one/refused_checkpoints/3.0/info/metadata").exists()
    (bucket / "runs/one/checkpoints/4/state/_METADATA").write_text("a save that was cut short")
    assert Checkpoints(run_dir, loop).steps() == [2]
    assert not (bucket / "runs/one/checkpoints/4/state/_METADATA").exists()


def test_a_deletion_that_is_cut_short(bucket, tmp_path, monkeypatch):
    """What is left of it is taken for no checkpoint."""
    loop, run_dir = LoopSpec(ckpt_dir="gs://bucket/cut/{name}"), RunDir(tmp_path / "one")
    checkpoints = Checkpoints(run_dir, loop)
    checkpoints.save(1, state_of("data and fsdp", numbers()), {"step": 1}, rows=[])
    checkpoints.close()
    place = place_of(run_dir.path, loop)
    assert place.steps() == [1]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(place.path(1)), "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        place.delete(1)
    assert (bucket / "cut/one/checkpoints/1/state/_METADATA").exists()
    assert place.steps() == []


def test_a_run_goes_on_on_a_fresh_machine(bucket, tmp_path):
    settings = {"loop__ckpt_dir": "gs://bucket/fresh/{name}", "eval__steps": 6}
    assert run_here(*command(tmp_path / "one", **settings)) == 0
    rows = without_speed(RunDir(tmp_path / "one").metrics())
    assert not (tmp_path / "one" / "checkpoints").exists()
    (bucket / "fresh/one/checkpoints/12").rmtree()  # as if it had been preempted between 8 and 12
    shutil.rmtree(tmp_path / "one")
    assert run_here(*command(tmp_path / "one", **settings)) == 0
    assert without_speed(RunDir(tmp_path / "one").metrics()) == rows
    assert run_here(*command(tmp_path / "elsewhere" / "one", **settings, seed=1)) == 2  # another run's
