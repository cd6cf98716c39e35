"""Histograms and profiles of real runs, read back from the files that TensorBoard reads."""

import json
import shutil

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from trainer_runs import command, run_here, saved_arrays, saved_steps

from vit_attn.loop.histograms import histogram
from vit_attn.store.run_dir import RunDir

SETTINGS = {"train__steps": 23, "loop__histogram_steps": 5, "loop__ckpt_steps": 8, "loop__ckpt_keep": 5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("watch") / "run"
    assert run_here(*command(workdir, **SETTINGS), "--profile") == 0
    return workdir


@pytest.fixture(scope="module")
def resumed(whole, tmp_path_factory):
    """The same, killed behind step 15: saved at 8, a histogram of step 10, and that of step 15 half written."""
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    shutil.copytree(whole, workdir)
    for step in (one for one in saved_steps(workdir) if one > 8):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    for name in ("status.json", "plugins"):
        (shutil.rmtree if name == "plugins" else lambda path: path.unlink())(workdir / name)
    rows = (workdir / "histograms.jsonl").read_text().splitlines(keepends=True)
    (workdir / "histograms.jsonl").write_text("".join(rows[:2]) + rows[2][:999])
    assert run_here(*command(workdir, **SETTINGS), "--profile") == 0
    return workdir


def drawn(workdir):
    """{tag: [(step, [left, right, count] of each bucket)]} of all that TensorBoard shows as histograms."""
    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"]
    return {tag: [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)] for tag in tags}


def test_histograms_are_the_parameters(whole):
    """Numpy's count of what the last checkpoint holds."""
    params = {name.removeprefix("/"): x for name, x in saved_arrays(whole, 23).items() if name.startswith("/params/")}
    found = drawn(whole)
    assert found.keys() == params.keys()
    for tag, values in params.items():
        (*_, (step, buckets)) = found[tag]
        assert step == 23
        assert buckets[:, 2].sum() == values.size
        counts, edges = np.histogram(values.astype(np.float64), bins=30, range=(buckets[0, 0], buckets[-1, 1]))
        np.testing.assert_allclose(buckets[:, 0], edges[:-1], rtol=1e-5, atol=1e-7)
        assert np.abs(buckets[:, 2].cumsum() - counts.cumsum()).max() <= 1 + values.size // 1000  # on an edge, in float32
        if np.ptp(values):
            assert (buckets[0, 0], buckets[-1, 1]) == (values.min(), values.max())


def test_a_resumed_run_has_each_histogram_once(whole, resumed):
    before, after = drawn(whole), drawn(resumed)
    assert before.keys() == after.keys()
    for tag, rows in after.items():
        assert [step for step, _ in rows] == [5, 10, 15, 20, 23]
        for (_, got), (_, wanted) in zip(rows, before[tag], strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert (resumed / "histograms.jsonl").read_text() == (whole / "histograms.jsonl").read_text()
    assert [row["step"] for row in RunDir(resumed).metrics()] == [row["step"] for row in RunDir(whole).metrics()]


def test_never_unless_asked(tmp_path):
    assert run_here(*command(tmp_path / "run", train__steps=3)) == 0
    assert not drawn(tmp_path / "run")
    assert not (tmp_path / "run" / "histograms.jsonl").exists()
    assert not (tmp_path / "run" / "plugins").exists()
    assert "memory/device_mib" not in RunDir(tmp_path / "run").metrics()[-1]  # a CPU does not count it


@pytest.mark.parametrize("shape", [(2, 3, 5), (7,), ()])
def test_histogram_of_any_shape(shape):
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    low, high, counts = histogram(jax.numpy.asarray(x))
    if x.size == 1:
        np.testing.assert_allclose([low, high], [x - 0.5, x + 0.5], rtol=1e-6)
        assert counts[15] == 1
    else:
        np.testing.assert_array_equal(counts, np.histogram(x, bins=30)[0])
    assert counts.shape == (30,)


def profiled(workdir):
    """The numbers of the steps that its only profile has."""
    (file,) = (workdir / "plugins" / "profile").glob("*/*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(file))
    events = (event for plane in profile.planes for line in plane.lines for event in line.events)
    return [dict(event.stats)["step_num"] for event in events if event.name == "train"]


def test_profile(whole, resumed):
    """Steps 11 to 20 of a start; where it has fewer, the last ten."""
    assert profiled(whole) == list(range(11, 21))
    assert profiled(resumed) == list(range(14, 24))


def test_a_run_started_over_has_nothing_of_the_old_one(resumed, tmp_path):
    shutil.copytree(resumed, tmp_path / "run")
    (tmp_path / "run" / "mine.txt").write_text("kept")
    run_dir = RunDir(tmp_path / "run")
    run_dir.clear(run_dir.spec())
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"mine.txt", ".lock", "plugins"}
    assert not list((tmp_path / "run" / "plugins").iterdir())


def test_rows_are_json(resumed):
    first = json.loads((resumed / "histograms.jsonl").read_text().splitlines()[0])
    low, high, counts = first["params/head/kernel"]
    assert low < high
    assert sum(counts) == 320
