"""Every mistake of the user's: one line on stderr with the key, the value and the way out, exit code 2, nothing touched."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from tfds_sets import write_gray
from trainer_runs import command, run_here, saved_steps

from vit_attn.store.run_dir import RunDir

CLIPPED = ["--config.model.attention.h=clipped_softmax"]
CASES = {
    "unknown key": (["--config.train.lr=1e-3"], ["config.train.lr", "peak_lr"]),
    "unknown section": (["--config.optim.lr=1e-3"], ["config.optim", "choices: seed, model"]),
    "section as value": (["--config.train=5"], ["config.train=5", "section"]),
    "value as section": (["--config.seed.x=5"], ["config.seed.x", "is a value"]),
    "misspelt h": (["--config.model.attention.h=rleu"], ["config.model.attention.h", "'rleu'", "'relu'", "softplus"]),
    "alpha nan": (["--config.model.attention.alpha=nan"], ["config.model.attention.alpha=nan", "finite"]),
    "alpha inf": (["--config.model.attention.alpha=inf"], ["config.model.attention.alpha=inf", "finite"]),
    "alpha text": (["--config.model.attention.alpha=big"], ["config.model.attention.alpha='big'", "float"]),
    "alpha of softmax": (["--config.model.attention.h=softmax", "--config.model.attention.alpha=1"], ["alpha=1", "softmax"]),
    "gamma of relu": (
        ["--config.model.attention.h=relu", "--config.model.attention.gamma=-0.1"],
        ["gamma=-0.1", "clipped_softmax"],
    ),
    "gamma positive": ([*CLIPPED, "--config.model.attention.gamma=0.1"], ["config.model.attention.gamma=0.1", "<= 0"]),
    "zeta below 1": ([*CLIPPED, "--config.model.attention.zeta=0.9"], ["config.model.attention.zeta=0.9", ">= 1"]),
    "two gammas": (
        [*CLIPPED, "--config.model.attention.gamma=-0.1", "--config.model.attention.gamma_per_length=2"],
        ["gamma=-0.1", "gamma_per_length=2", "leave one out"],
    ),
    "negative c": ([*CLIPPED, "--config.model.attention.gamma_per_length=-2"], ["gamma_per_length=-2", ">= 0"]),
    "learned alpha of softmax": (
        ["--config.model.attention.h=softmax", "--config.model.attention.alpha_learned=head"],
        ["alpha_learned='head'", "h='softmax'", "relu"],
    ),
    "gate": (["--config.model.attention.gate=glu"], ["config.model.attention.gate", "'glu'", "gau, linear, mlp, all_heads"]),
    "pi_init": (
        ["--config.model.attention.gate=linear", "--config.model.attention.pi_init=1.0"],
        ["config.model.attention.pi_init=1.0", "< 1"],
    ),
    "gate_rescale of no gate": (
        ["--config.model.attention.gate_rescale=true"],
        ["gate_rescale=True", "gate='none'", "linear, mlp, all_heads"],
    ),
    "pi_init of no gate": (["--config.model.attention.pi_init=0.5"], ["pi_init=0.5", "gate='none'", "linear, mlp, all_heads"]),
    "n_hid of linear": (
        ["--config.model.attention.gate=linear", "--config.model.attention.n_hid=4"],
        ["config.model.attention.n_hid=4", "gate='linear'", "mlp"],
    ),
    "activation of linear": (
        ["--config.model.attention.gate=linear", "--config.model.attention.gate_activation=relu"],
        ["gate_activation=relu", "gau"],
    ),
    "bias of no norm": (
        ["--config.model.attention.qk_norm=none", "--config.model.attention.qk_norm_bias=True"],
        ["qk_norm_bias=True", "qk_norm='none'", "head, width"],
    ),
    "block": (["--config.model.attention.block=0"], ["config.model.attention.block=0", ">= 1"]),
    "impl": (
        ["--config.model.attention.impl=flash"],
        ["config.model.attention.impl", "'flash'", "auto, dense, blockwise, pallas"],
    ),
    "impl of a TPU": (["--config.model.attention.impl=pallas"], ["impl='pallas'", "TPU", "cpu", "auto, dense, blockwise"]),
    "dropout of blockwise": (
        ["--config.model.attention.impl=blockwise", "--config.model.attention.dropout=0.1"],
        ["impl='blockwise'", "dropout=0.1", "auto, dense"],
    ),
    "dropout of tokens over devices": (
        ["--config.model.attention.dropout=0.1", "--config.mesh.seq=2"],
        ["config.mesh.seq=2", "config.model.attention.dropout=0.1"],
    ),
    "layout of clipped softmax": (
        [*CLIPPED, "--config.model.attention.seq_layout=ring"],
        ["seq_layout='ring'", "clipped_softmax", "auto, gather"],
    ),
    "layout": (["--config.model.attention.seq_layout=tree"], ["seq_layout", "'tree'", "auto, gather, queries, ring"]),
    "mesh": (["--config.mesh.seq=3"], ["config.mesh.seq=3", "8 devices"]),
    "mesh of nothing": (["--config.mesh.seq=0"], ["config.mesh.seq=0", "at least 1"]),
    "mesh of two rests": (["--config.mesh.seq=-1"], ["config.mesh.data=-1", "config.mesh.seq=-1"]),
    "negative steps": (["--config.train.steps=-5"], ["config.train.steps=-5", ">= 0"]),
    "steps not whole": (["--config.train.steps=1.5"], ["config.train.steps=1.5", "int"]),
    "warm-up too long": (["--config.train.warmup_steps=12"], ["warmup_steps=12", "config.train.steps=12"]),
    "patch": (["--config.model.patch=5"], ["config.model.patch=5", "image_size=28", "1, 2, 4, 7, 14, 28"]),
    "variant": (["--config.model.variant=XL/14"], ["XL", "nano, Ti, S, B"]),
    "variant without patch": (["--config.model.variant=S"], ["'S'", "S/16"]),
    "heads": (["--config.model.heads=3"], ["config.model.heads=3", "width=32"]),
    "batch and devices": (["--config.train.batch_images=17"], ["train.batch_images=17", "8 devices", "16, 24"]),
    "eval batch and devices": (["--config.eval.batch_images=9"], ["eval.batch_images=9", "8 devices"]),
    "missing data set": (
        ["--config.data.name=cifar10", "--config.data.data_dir=/nowhere"],
        ["'cifar10'", "/nowhere", "python -c", "download_and_prepare"],
    ),
    "unknown embedded set": (["--config.data.name=mnist"], ["'mnist'", "fashion_mnist_12k"]),
    "split": (["--config.eval.split=test"], ["'test'", "validation"]),
    "label key": (["--config.data.label_key=class"], ["label_key", "'class'", "image, label"]),
    "too few classes": (["--config.model.num_classes=7"], ["num_classes=7", "10"]),
    "override without value": (["--config.seed"], ["--config.seed", "VALUE"]),
    "unknown flag": (["--wrkdir=x"], ["--wrkdir", "--help"]),
}


def refused(capfd, *argv):
    """Runs the command, which must fail as a user's mistake does, and returns the one line that it printed on stderr."""
    assert run_here(*argv) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith(("WARNING", "I0000"))]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("case", CASES)
def test_settings(case, capfd, tmp_path):
    extra, words = CASES[case]
    line = refused(capfd, *command(tmp_path / "run"), *extra)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("configs/quikstart.py", ["configs/quikstart.py", "does not exist"]),
        ("configs/common.py", ["configs/common.py", "does not define get_config"]),
        ("configs/quickstart.py:h=relu,alfa=1", ["alfa=1", "alpha"]),
        ("configs/quickstart.py:patch=big", ["patch='big'", "int"]),
        ("README.md", ["README.md", "Python file"]),
        ("{tmp}/broken.py", ["broken.py", "line 2", "NameError"]),
        ("{tmp}/dict.py", ["dict.py", "ConfigDict"]),
    ],
)
def test_config_files(config, words, capfd, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(arg):\n  return undefined\n")
    (tmp_path / "dict.py").write_text("def get_config(arg):\n  return {}\n")
    line = refused(capfd, *command(tmp_path / "run", config.format(tmp=tmp_path)))
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


def test_no_config_and_no_workdir(capfd):
    assert "--config" in refused(capfd)
    assert "--workdir" in refused(capfd, "--config", "configs/quickstart.py")


def test_a_workdir_of_another_config(capfd, tmp_path):
    assert run_here(*command(tmp_path / "run")) == 0
    capfd.readouterr()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    line = refused(capfd, *command(tmp_path / "run", seed=5, model__variant="mu/7"))
    for words in ("config.seed: 0 there, 5 here", "config.model.patch: 14 there, 7 here", "--overwrite", "--workdir"):
        assert words in line
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert run_here(*command(tmp_path / "run", seed=5), "--overwrite") == 0
    assert RunDir(tmp_path / "run").spec().seed == 5
    assert {row["step"] for row in RunDir(tmp_path / "run").metrics()} == {1, 2, 4, 6, 8, 10, 12}


@contextmanager
def without_rights():
    """Root steps down for a while; anybody else has none anyway."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_unwritable_workdir(capfd):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with without_rights():
            for extra in ([], ["--overwrite"]):
                line = refused(capfd, *command(f"{folder}/run"), *extra)
                assert "no permission to write" in line
                assert folder in line
        Path(folder).chmod(0o755)


def test_workdir_where_not_even_root_may(capfd):
    """Permissions say yes to root there, and the file system says no."""
    assert "/proc" in refused(capfd, *command("/proc/vit_attn/run"))


def test_workdir_under_a_file(capfd, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(capfd, *command(tmp_path / "file" / "run"))
    assert (tmp_path / "file").read_text() == "mine"


def test_run_that_is_none(capfd, tmp_path):
    assert "holds no run" in refused(capfd, "--run", tmp_path)
    assert "--overwrite" in refused(capfd, "--run", tmp_path, "--overwrite")


def test_label_out_of_range(capfd, tmp_path):
    write_gray(tmp_path, "bad_label", [0, 1, 2, 10] * 8)
    capfd.readouterr()
    argv = command(tmp_path / "run", data__data_dir=tmp_path, data__name="bad_label", eval__split="train[:16]")
    line = refused(capfd, *argv)
    for word in ("example", "split 'train'", "bad_label", "label", "num_classes=10"):
        assert word in line
    assert RunDir(tmp_path / "run").status().state == "failed"


class TestCheckpoints:
    """A run of 12 steps with checkpoints at 8 and 12 is told to go on after something happened to them."""

    @pytest.fixture
    def run(self, tmp_path):
        assert run_here(*command(tmp_path / "run")) == 0
        (tmp_path / "run" / "status.json").unlink()  # as if it had been killed in its last moment
        return tmp_path / "run"

    def data_files(self, run, step):
        """All files with array bytes: how orbax spreads them, and what it leaves unused in one, varies from run to run."""
        return [path for path in (run / "checkpoints" / str(step) / "state").rglob("d/*") if path.is_file()]

    def test_truncated(self, run, capfd):
        for file in self.data_files(run, 12):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        self.goes_on_from_8(run, capfd, "cannot be read")

    def test_flipped_bits(self, run, capfd):
        for file in self.data_files(run, 12):
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 4
            file.write_bytes(data)
        self.goes_on_from_8(run, capfd, "")

    def test_of_another_run(self, run, capfd, tmp_path):
        assert run_here(*command(tmp_path / "other", seed=3)) == 0
        shutil.rmtree(run / "checkpoints" / "12")
        shutil.copytree(tmp_path / "other" / "checkpoints" / "12", run / "checkpoints" / "12")
        self.goes_on_from_8(run, capfd, "config.seed: 3 there, 0 here")

    def goes_on_from_8(self, run, capfd, reason):
        assert run_here(*command(run)) == 0
        printed = capfd.readouterr().out
        assert f"refused: checkpoint {run / 'checkpoints' / '12'}" in printed
        assert reason in printed
        assert "going on from step 8" in printed
        assert "resumes at step 8" in printed
        assert saved_steps(run) == [8, 12]
        assert len(list((run / "refused_checkpoints").iterdir())) == 1
        assert RunDir(run).status().state == "done"

    def test_none_is_good(self, run, capfd):
        for step in (8, 12):
            for file in self.data_files(run, step):
                file.write_bytes(b"")
        line = refused(capfd, *command(run))
        assert "none of its checkpoints can be used" in line
        assert "--overwrite" in line
        assert saved_steps(run) == [8, 12]
