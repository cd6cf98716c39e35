"""What may happen to a run in its week on a machine: kills at any moment, a full disk, damaged files. Nothing is lost."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from trainer_runs import (
    assert_same_arrays,
    command,
    finish,
    kill_at,
    run_here,
    saved_arrays,
    saved_steps,
    start,
    wait_for,
    without_speed,
)

from vit_attn.store.run_dir import RunDir

EVERYTHING = bool(os.environ.get("VIT_ATTN_TEST_EVERYTHING"))
KILLS = 20 if EVERYTHING else 5
STEPS = 200 if EVERYTHING else 80


def busy(workdir, **more):
    """A command that saves after every step, so that there is hardly a moment in which it does not save."""
    settings = {"train__steps": STEPS, "eval__steps": 40, "loop__log_steps": 5, "loop__ckpt_steps": 1, "loop__ckpt_keep": 2}
    return command(workdir, **{**settings, **more})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(busy(folder / "run", loop__ckpt_steps=50), folder / "log")
    return folder / "run"


def scalars(workdir):
    """{tag: [(step, value), ...]} of all that TensorBoard shows, without what the clock says."""
    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    shown = {
        tag: [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        for tag in tags
        if "/" in tag and not tag.startswith("_")
    }
    assert without_speed([shown])[0]
    return without_speed([shown])[0]


def assert_same_run(workdir, undisturbed):
    assert_same_arrays(saved_arrays(workdir), saved_arrays(undisturbed))
    rows = without_speed(RunDir(workdir).metrics())
    assert rows == without_speed(RunDir(undisturbed).metrics())
    assert [row["step"] for row in rows] == [1, *range(5, STEPS + 1, 5)]
    assert scalars(workdir) == scalars(undisturbed)
    assert RunDir(workdir).status().state == "done"


def test_killed_at_random_moments(undisturbed, tmp_path):
    """SIGKILL again and again, at moments drawn from the whole life of a process, most of which it spends saving."""
    seed = int(os.environ.get("VIT_ATTN_TEST_SEED", random.SystemRandom().randrange(10**6)))
    rng, workdir = random.Random(seed), tmp_path / "run"
    print(f"VIT_ATTN_TEST_SEED={seed}")  # shown by pytest where the test fails
    newest, inside = 0, 0
    for kill in range(KILLS):
        log = tmp_path / f"log{kill}"
        process = start(busy(workdir), log)
        where = rng.choice(["anywhere", "first save", "later", "later", "later"] if kill else ["later"])
        if where == "anywhere":
            time.sleep(rng.random() * 6)  # in start, restore or compile, or in the first steps
        else:
            wait_for(process, log, f"(of {STEPS})")  # it starts, or resumes
            if where == "later":
                wait_for_save(process, workdir, newest + rng.randint(1, 4))
            time.sleep(rng.random() * 0.2)
        process.kill()
        if process.wait() == 0:
            break
        inside += any("orbax-checkpoint-tmp" in path.name for path in workdir.glob("checkpoints/*"))
        steps = saved_steps(workdir) if (workdir / "checkpoints").exists() else []
        assert max(steps, default=0) >= newest, "a good checkpoint was deleted before the next one was complete"
        newest = max(steps, default=0)
        for step in steps[-2:]:  # ckpt_keep; an older one may be half deleted
            assert len(saved_arrays(workdir, step)) > 20
        assert "refused" not in log.read_text(), "a half checkpoint was taken for a good one"
        print(f"kill {kill} ({where}): saved {steps}")
    assert newest
    printed = finish(busy(workdir), tmp_path / "last")
    assert "refused" not in printed
    assert "resumes at step" in printed or newest == STEPS
    assert not (workdir / "refused_checkpoints").exists()
    assert_same_run(workdir, undisturbed)
    print(f"killed inside a save: {inside} of {KILLS}")
    assert inside or not EVERYTHING


def test_ctrl_c_twice_ends_at_once(tmp_path):
    """The second one need not wait for anything: the first was said to save, and takes as long as that takes."""
    log = tmp_path / "log"
    process = start(busy(tmp_path / "run"), log)
    wait_for(process, log, "step  5/" if STEPS < 100 else "step   5/")
    process.send_signal(signal.SIGINT)
    wait_for_either(process, log, "a second one ends at once")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (-signal.SIGINT, 3)  # 130 in a shell; 3 where it had just saved and ended by the first
    assert "Traceback" not in log.read_text()
    assert RunDir(tmp_path / "run").status().seen_state() in ("interrupted", "stopped")
    for step in saved_steps(tmp_path / "run"):
        assert len(saved_arrays(tmp_path / "run", step)) > 20


def test_ctrl_c_twice_does_not_wait_for_the_compiler(tmp_path):
    log = tmp_path / "log"
    process = start(busy(tmp_path / "run"), log)
    wait_for(process, log, "compiling for")
    process.send_signal(signal.SIGINT)
    wait_for_either(process, log, "a second one ends at once")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == -signal.SIGINT
    assert not (tmp_path / "run/checkpoints").exists() or saved_steps(tmp_path / "run") == []


def wait_for_save(process, workdir, step):
    deadline = time.monotonic() + 200
    while max(saved_steps(workdir), default=0) < step and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def wait_for_either(process, log, text):
    while text not in log.read_text() and process.poll() is None:
        time.sleep(0.0005)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk(undisturbed, small_disk, tmp_path):
    workdir, log = small_disk / "run", tmp_path / "log"
    process = start(busy(workdir, loop__ckpt_steps=10), log)
    wait_for(process, log, "step 30/" if STEPS < 100 else "step  30/")  # so that step 10 is on the disk
    with open(small_disk / "ballast", "wb", buffering=0) as ballast:
        try:
            while process.poll() is None:
                ballast.write(b"x" * 4096)
        except OSError:
            pass
    assert process.wait(100) == 1, log.read_text()
    words = log.read_text().rstrip().splitlines()[-1]
    kept = saved_steps(workdir)[-1]
    for part in (
        f"error: {workdir}",
        "no space left on device",
        "MiB are free on its disk, a checkpoint takes",
        f"the last checkpoint is step {kept};",
    ):
        assert part in words
    assert len(saved_arrays(workdir, kept)) > 20
    assert not list(workdir.glob(".status.json.*"))
    (small_disk / "ballast").unlink()
    assert f"resumes at step {kept}" in finish(busy(workdir, loop__ckpt_steps=10), tmp_path / "log2")
    assert_same_run(workdir, undisturbed)


def test_a_folder_that_became_read_only(small_disk, tmp_path):
    """As a file system that the kernel remounts read-only after an error: here only that of the checkpoints."""
    workdir = small_disk / "run"
    assert kill_at(command(workdir), tmp_path / "log", "step  6/12", signal.SIGTERM) == 3
    before = saved_steps(workdir)
    folder = workdir / "checkpoints"
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    try:
        assert start(command(workdir), tmp_path / "log2").wait(100) == 1, Path(tmp_path / "log2").read_text()
    finally:
        subprocess.run(["umount", folder], check=True)
    words = (tmp_path / "log2").read_text().rstrip().splitlines()[-1]
    assert words.startswith("error: ")
    assert "read-only file system" in words
    assert f"the last checkpoint is step {before[-1]};" in words
    assert saved_steps(workdir) == before
    assert run_here(*command(workdir)) == 0


def damaged(file, rng):
    """One bit flipped, or the end cut off, at a random place."""
    data = bytearray(file.read_bytes())
    place = rng.randrange(len(data))
    if rng.random() < 0.5:
        data[place] ^= 1 << rng.randrange(8)
        how = f"{file.name}: bit flipped at byte {place} of {len(data)}"
    else:
        how = f"{file.name}: cut off at byte {place} of {len(data)}"
        del data[place:]
    file.write_bytes(data)
    return how


def test_any_damaged_file_of_a_checkpoint(tmp_path, capfd):
    """Whatever file it is: the checkpoint is refused and the one before it taken, or what was read is what was saved."""
    seed = int(os.environ.get("VIT_ATTN_TEST_SEED", random.SystemRandom().randrange(10**6)))
    rng = random.Random(seed)
    whole = tmp_path / "whole"
    assert run_here(*command(whole)) == 0
    (whole / "status.json").unlink()
    wanted, rows = saved_arrays(whole), without_speed(RunDir(whole).metrics())
    files = sorted(
        path.relative_to(whole) for path in (whole / "checkpoints" / "12").rglob("*") if path.is_file() and path.stat().st_size
    )
    assert len(files) > 5
    for name in files if EVERYTHING else rng.sample(files, 4):
        workdir = tmp_path / "run"
        shutil.copytree(whole, workdir)
        how = f"VIT_ATTN_TEST_SEED={seed}: {damaged(workdir / name, rng)}"
        capfd.readouterr()
        assert run_here(*command(workdir)) == 0, how
        printed = capfd.readouterr().out
        assert ("going on from step 8" in printed) == (workdir / "refused_checkpoints" / "12.0").exists(), how
        assert "resumes at step 8" in printed or "resumes at step 12" in printed, how
        if "resumes at step 12" in printed:  # it did without this file, and the judge, which is orbax alone, may not
            shutil.copyfile(whole / name, workdir / name)
        assert_same_arrays(saved_arrays(workdir), wanted)
        assert without_speed(RunDir(workdir).metrics()) == rows, how
        shutil.rmtree(workdir)
