"""Checkpoints: of any sharding, into any other; what is damaged is refused; what differs is said; what counts is kept."""

import resource
import shutil

import jax
import numpy as np
import pytest
from sharded_states import MESHES, SHAPES, like_of, numbers, sharding_of, state_of

from vit_attn.spec.run import LoopSpec
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.fingerprint import fingerprints, part_sum
from vit_attn.store.kept import kept
from vit_attn.store.restore import BadCheckpointError, OtherTreeError, read_info
from vit_attn.store.run_dir import RunDir

VALUES = numbers()


def bits(x):
    x = np.asarray(x)
    return x.view({2: np.uint16, 4: np.uint32}[x.dtype.itemsize])


def assert_same(state, values):
    found = {"/".join(str(k) for k in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]}
    assert len(found) == len(SHAPES) + 2
    for name, value in values.items():
        (leaf,) = (leaf for path, leaf in found.items() if name in path)
        assert leaf.dtype == value.dtype
        np.testing.assert_array_equal(bits(leaf), bits(value), err_msg=name)
    assert int(state.step) == 11


def oracle(x):
    """sum_i w_i (1 + C i) mod 2^32 in Python's integers."""
    return sum(int(word) * (1 + 2 * 2654435761 * i) for i, word in enumerate(bits(x).ravel())) % 2**32


def save(folder, layout="data and fsdp", loop=None, steps=(3,), **more):
    run_dir = RunDir(folder)
    checkpoints = Checkpoints(run_dir, loop or LoopSpec())
    for step in steps:
        checkpoints.save(step, state_of(layout, VALUES), {"step": step}, **more)
    checkpoints.close()
    return run_dir


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return {layout: save(tmp_path_factory.mktemp("saved") / "run", layout) for layout in MESHES}


@pytest.mark.parametrize("there", MESHES)
@pytest.mark.parametrize("here", MESHES)
def test_saved_under_one_sharding_read_under_another(saved, there, here):
    checkpoints = Checkpoints(saved[there], LoopSpec())
    state, info = checkpoints.restore(3, like_of(here))
    assert_same(state, VALUES)
    assert state.params["Transformer"]["kernel"].sharding == sharding_of(here)("kernel")
    assert state.moments[1][0]["mu"].sharding == sharding_of(here)("mu")
    numbers_here = {path.split("/")[-1]: number for path, (_, number) in info["arrays"].items()}
    assert numbers_here["kernel"] == oracle(VALUES["kernel"])
    assert numbers_here["deep"] == oracle(VALUES["deep"])
    assert numbers_here["positions"] == oracle(VALUES["positions"])
    assert numbers_here["mu"] == oracle(VALUES["mu"])
    assert numbers_here["step"] == 11


def test_any_flipped_bit_changes_a_fingerprint():
    rng = np.random.default_rng(1)
    for name, value in VALUES.items():
        words = bits(value)
        whole = part_sum(value, (0,) * value.ndim, value.shape)
        assert whole == oracle(value)
        for _ in range(50):
            place, bit = tuple(rng.integers(size) for size in words.shape), rng.integers(8 * words.itemsize)
            changed = words.copy()
            changed[place] ^= words.dtype.type(1) << words.dtype.type(bit)
            assert part_sum(changed.view(value.dtype), (0,) * value.ndim, value.shape) != whole, (name, place, bit)
    assert fingerprints({"same": jax.numpy.arange(5)}) == ({"same": oracle(np.arange(5, dtype=np.int32))}, [])


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    """A long array, so that writing takes longer than overwriting; its buffer is reused by the next step."""
    checkpoints = Checkpoints(RunDir(tmp_path), LoopSpec())
    x = jax.device_put(np.arange(8_000_000, dtype=np.float32), sharding_of("replicated")(""))
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    checkpoints.save(0, {"x": x}, {})
    for _ in range(3):
        x = step(x)
    checkpoints.wait()
    restored, _ = checkpoints.restore(0, {"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)})
    np.testing.assert_array_equal(restored["x"], np.arange(8_000_000, dtype=np.float32))
    checkpoints.close()


def damages(data, rng):
    """Flipped bits at random places, the first half, and nothing at all."""
    for place in rng.integers(0, len(data), 4):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.integers(8)
        yield bytes(changed)
    yield data[: len(data) // 2]
    yield b""


def test_damage_in_any_file_is_refused_or_harmless(saved, tmp_path):
    """Nothing but the state that was saved is ever taken for it."""
    run_dir = RunDir(shutil.copytree(saved["fsdp and model"].path, tmp_path / "run"))
    checkpoints, like = Checkpoints(run_dir, LoopSpec()), like_of("data and fsdp")
    files = [path for path in (run_dir.checkpoints / "3").rglob("*") if path.is_file()]
    rng, refused = np.random.default_rng(2), set()
    assert {"metadata", "_METADATA", "manifest.ocdbt", "_CHECKPOINT_METADATA"} <= {file.name for file in files}
    for file in files:
        data = file.read_bytes()
        for changed in damages(data, rng):
            file.write_bytes(changed)
            try:
                assert_same(checkpoints.restore(3, like)[0], VALUES)
            except BadCheckpointError as error:
                assert str(run_dir.checkpoints / "3") in str(error)  # noqa: PT017 (either is right)
                refused.add(str(file.relative_to(run_dir.checkpoints / "3")))
        file.write_bytes(data)
    assert {"info/metadata", "state/_METADATA", "state/manifest.ocdbt"} <= refused
    assert any(name.startswith("state/d/") for name in refused)
    assert_same(checkpoints.restore(3, like)[0], VALUES)


def test_a_number_that_changed(saved, tmp_path):
    """Still JSON, still a number: seconds, say."""
    run_dir = RunDir(shutil.copytree(saved["fsdp"].path, tmp_path / "run"))
    file = run_dir.checkpoints / "3" / "info" / "metadata"
    file.write_text(file.read_text().replace('"step": 3', '"step": 7'))
    with pytest.raises(BadCheckpointError, match="its info/ was altered"):
        Checkpoints(run_dir, LoopSpec()).restore(3, like_of("fsdp"))


def test_a_bit_that_flipped_before_the_file_system_saw_it(saved, tmp_path):
    """What tensorstore's own checksums cannot see: the array of another save, whole, under this one's name."""
    run_dir = RunDir(shutil.copytree(saved["fsdp"].path, tmp_path / "run"))
    changed = {**VALUES, "kernel": VALUES["kernel"].copy()}
    bits(changed["kernel"])[5, 3] ^= 1 << 17
    other = RunDir(tmp_path / "other")
    checkpoints = Checkpoints(other, LoopSpec())
    checkpoints.save(3, state_of("fsdp", changed), {})
    checkpoints.close()
    shutil.rmtree(run_dir.checkpoints / "3" / "state")
    shutil.copytree(other.checkpoints / "3" / "state", run_dir.checkpoints / "3" / "state")
    with pytest.raises(BadCheckpointError, match="not what was saved: params/Transformer/kernel were altered"):
        Checkpoints(run_dir, LoopSpec()).restore(3, like_of("fsdp"))


def test_other_arrays_are_listed_and_nothing_is_touched(saved):
    like = like_of("fsdp")
    kernel = jax.ShapeDtypeStruct((6, 8), np.float32, sharding=sharding_of("fsdp")(""))
    new = {f"layer{i}": kernel for i in range(12)}
    params = {"Transformer": {"kernel": kernel, "scale": kernel}, "deep": like.params["deep"], "positions": kernel, **new}
    mu = jax.ShapeDtypeStruct((6, 16), np.float32, sharding=kernel.sharding)
    other = like._replace(params=params, moments=((), ({"mu": mu}, None, like.moments[1][2])))
    checkpoints = Checkpoints(saved["fsdp"], LoopSpec())
    before = sorted(path for path in saved["fsdp"].path.rglob("*"))
    with pytest.raises(OtherTreeError) as caught:
        checkpoints.restore(3, other)
    lines = caught.value.details
    assert len(lines) == 13
    assert "missing: params/Transformer/scale float32[6, 8]" in lines
    assert lines[-1] == "and 5 more: 1 missing, 1 extra, 2 other shape, 1 other type"
    assert "--config.init_from=" in str(caught.value)
    few = like._replace(params={**like.params, "deep": kernel}, moments=((), ({"mu": mu}, None, like.moments[1][2])))
    with pytest.raises(OtherTreeError) as caught:
        checkpoints.restore(3, few)
    assert caught.value.details == (
        "other shape: params/deep is float32[3, 2, 10, 5] there, float32[6, 8] here",
        "other type: moments/1/0/mu is bfloat16[6, 16] there, float32[6, 16] here",
    )
    assert sorted(path for path in saved["fsdp"].path.rglob("*")) == before
    assert_same(checkpoints.restore(3, like)[0], VALUES)


ACCURACY = {10: 0.1, 20: 0.7, 30: 0.3, 40: 0.7, 50: 0.2, 60: float("nan"), 70: 0.6}


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"ckpt_keep": 2}, {60, 70}),
        ({"ckpt_keep": 9}, set(ACCURACY)),
        ({"ckpt_keep": 1, "ckpt_keep_every": 30}, {30, 60, 70}),
        ({"ckpt_keep": 1, "ckpt_best": "val/accuracy"}, {40, 70}),
        ({"ckpt_keep": 1, "ckpt_best": "val/accuracy", "ckpt_best_order": "min"}, {10, 70}),
        ({"ckpt_keep": 1, "ckpt_best": "val/loss"}, {70}),
        ({"ckpt_keep": 2, "ckpt_keep_every": 50, "ckpt_best": "val/accuracy"}, {40, 50, 60, 70}),
    ],
)
def test_what_is_kept(settings, steps):
    assert kept({step: {"val/accuracy": value} for step, value in ACCURACY.items()}, LoopSpec(**settings)) == steps


def test_the_best_stays_over_restarts(tmp_path):
    loop = LoopSpec(ckpt_keep=1, ckpt_keep_every=40, ckpt_best="val/accuracy")
    on_disk = []
    for step, value in ACCURACY.items():  # each by a process of its own, as far as Checkpoints can tell
        save(tmp_path, loop=loop, steps=(step,), metrics={"val/accuracy": value, "train/loss": 1.0})
        on_disk.append(sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()))
    assert on_disk == [[10], [20], [20, 30], [40], [40, 50], [40, 60], [40, 70]]
    assert read_info(Checkpoints(RunDir(tmp_path), loop).path(40))["metrics"] == {"val/accuracy": 0.7, "train/loss": 1.0}
    min_now = LoopSpec(ckpt_keep=1, ckpt_best="train/loss", ckpt_best_order="min")  # changed at a restart
    save(tmp_path, loop=min_now, steps=(80,), metrics={"train/loss": 2.0})
    assert Checkpoints(RunDir(tmp_path), min_now).steps() == [70, 80]


def test_none_is_deleted_before_the_next_is_complete(tmp_path):
    """A save that cannot be written to its end: no file may become so large."""
    loop, soft = LoopSpec(ckpt_keep=1), resource.getrlimit(resource.RLIMIT_FSIZE)
    save(tmp_path, loop=loop, steps=(1,))
    checkpoints = Checkpoints(RunDir(tmp_path), loop)
    large = {"large": np.random.default_rng(0).normal(size=100_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, soft[1]))
    try:
        with pytest.raises(Exception, match="File too large"):  # noqa: PT012 (at once, or when it is waited for)
            checkpoints.save(2, large, {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    again = Checkpoints(RunDir(tmp_path), loop)
    assert again.steps() == [1]
    assert_same(again.restore(1, like_of("fsdp"))[0], VALUES)


def test_what_a_kill_leaves_is_no_checkpoint_and_goes(tmp_path):
    run_dir = save(tmp_path, steps=(1,))
    for name in ("2.orbax-checkpoint-tmp", "0.deleting"):
        shutil.copytree(run_dir.checkpoints / "1", run_dir.checkpoints / name)
    assert Checkpoints(run_dir, LoopSpec()).steps() == [1]
    assert [folder.name for folder in run_dir.checkpoints.iterdir()] == ["1"]


def test_set_aside_apart_from_the_run(tmp_path):
    """On another disk, with the metrics of the time; the step can be saved again."""
    loop = LoopSpec(ckpt_dir=str(tmp_path / "disk" / "{name}"))
    run_dir, rows = RunDir(tmp_path / "runs" / "one"), [{"step": 1, "train/loss": 2.5}]
    checkpoints = Checkpoints(run_dir, loop)
    checkpoints.save(1, state_of("fsdp", VALUES), {}, rows=rows)
    checkpoints.save(2, state_of("fsdp", VALUES), {}, rows=[*rows, {"step": 2}])
    checkpoints.wait()
    checkpoints.set_aside(2)
    assert checkpoints.steps() == [1]
    assert checkpoints.rows(1) == rows
    checkpoints.save(2, state_of("fsdp", VALUES), {}, rows=rows)
    checkpoints.close()
    assert Checkpoints(run_dir, loop).steps() == [1, 2]
    assert [entry.name for entry in (tmp_path / "disk" / "one" / "refused_checkpoints").iterdir()] == ["2.0"]
    assert not (tmp_path / "runs" / "one").exists()
