"""The README's way from ImageNet's archives to the first step, with archives of a few photographs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from imagenet_sets import write_archives

from vit_attn.store.run_dir import RunDir

ROOT = Path(__file__).resolve().parent.parent
SECTION = (ROOT / "README.md").read_text().split("\n## ImageNet\n")[1].split("\n## ")[0]
LINES = [line for line in SECTION.split("```")[1].splitlines() if line.startswith("python ")]
TINY = {
    "model.variant": "mu/32",
    "train.epochs": "none",
    "train.steps": 2,
    "train.warmup_steps": 1,
    "train.batch_images": 16,
    "eval.batch_images": 16,
    "data.workers": 1,
}


REAL_LABELS = """
from tensorflow_datasets.datasets.imagenet2012_real import imagenet2012_real_dataset_builder as real
labels = {f'ILSVRC2012_val_{i + 1:08d}.JPEG': [i % 7, 500][: i % 3] for i in range(20)}
real.Builder._get_real_labels = lambda self, manager: labels  # in place of a download
"""


def run(line, archives, env, *more):
    words = [sys.executable, *shlex.split(line.replace("/data/archives", str(archives)))[1:], *more]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def test_from_the_archives_to_the_first_step(tmp_path):
    prepare, others, train = LINES
    archives = tmp_path / "archives"
    write_archives(archives, train=150, validation=20)
    env = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds"), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    run(prepare, archives, env)
    assert "('imagenet2012_real', 'imagenet_v2')" in others
    others = others.replace("('imagenet2012_real', 'imagenet_v2')", "['imagenet2012_real']")  # v2 is downloaded whole
    run(others.replace('-c "', f'-c "{REAL_LABELS}'), archives, env)
    overrides = {**TINY, "evals.v2": "none"}
    workdir = str(tmp_path / "run")
    train = re.sub(r"--workdir \S+", f"--workdir {shlex.quote(workdir)}", train)
    printed = run(train, archives, env, *(f"--config.{key}={value}" for key, value in overrides.items()))
    assert "step 1/2 |" in printed
    assert f"{workdir}: done | val/accuracy" in printed
    assert RunDir(Path(workdir)).metrics()[-1]["real/images"] == 13  # of 20, every third has no label


@pytest.mark.parametrize("name", re.findall(r"`(configs/\w+\.py)`", SECTION))
def test_recipes_that_it_names_are_there(name):
    assert (ROOT / name).is_file()
