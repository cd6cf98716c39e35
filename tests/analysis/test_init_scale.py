"""Attention weights at initialisation against what Gaussian logits give in closed form, and the program's files and errors."""

import csv
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import attention_oracle as oracle
import jax
import numpy as np
import pytest
from PIL import Image

from vit_attn.analysis.init_scale import main
from vit_attn.analysis.initial_weights import by_curve, logits, measure, slope
from vit_attn.ops.nonlinearity import POINTWISE
from vit_attn.spec.errors import exit_code_of

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = (47, 197, 785)
ALPHAS = (0.0, 1.0, 1.7)
MEAN_OF = {  # of h(z) with z ~ N(0, s^2)
    "relu": lambda s: s / math.sqrt(2 * math.pi),
    "relu2": lambda s: s**2 / 2,
    "gelu": lambda s: s**2 / math.sqrt(2 * math.pi * (1 + s**2)),  # of z times the normal distribution function
    "identity": lambda s: 0.0,
    "sigmoid": lambda s: 0.5,
}
NODES, SHARES = np.polynomial.hermite_e.hermegauss(101)


def gaussian(function, s):
    """(mean, standard deviation) of function(z) with z ~ N(0, s^2), by quadrature."""
    values, shares = function(s * NODES), SHARES / SHARES.sum()
    mean = (values * shares).sum()
    return mean, math.sqrt((values**2 * shares).sum() - mean**2)


@pytest.fixture(scope="module", params=["head", "none"])
def rows(request):
    return measure(("softmax", *POINTWISE, "sigmoid_bias"), ALPHAS, LENGTHS, 4, request.param)


def test_means_have_their_closed_forms(rows):
    checked = [row for row in rows if row.h in MEAN_OF]
    assert len(checked) == len(MEAN_OF) * len(ALPHAS) * len(LENGTHS)
    for row in checked:
        want = row.length**-row.alpha * MEAN_OF[row.h](row.logit_std)
        assert row.mean == pytest.approx(want, rel=0.03, abs=0.03 * row.std), row


def test_means_and_deviations_are_those_of_gaussian_logits(rows):
    for row in rows:
        if row.h == "softmax":
            continue
        h = row.h if row.h in POINTWISE else "sigmoid"
        shift = 0.0 if row.h in POINTWISE else math.log(row.length)
        mean, std = gaussian(lambda z, h=h, shift=shift: oracle.POINTWISE[h](z - shift), row.logit_std)
        scale = row.length ** -(row.alpha or 0.0)
        assert row.mean == pytest.approx(scale * mean, rel=0.05, abs=0.03 * row.std), row
        assert row.std == pytest.approx(scale * std, rel=0.06), row


def test_softmax_gives_each_key_one_over_its_number(rows):
    assert [row.sum for row in rows if row.h == "softmax"] == pytest.approx([1.0] * len(LENGTHS), abs=1e-6)


def test_mean_times_length_is_constant_at_alpha_one_only(rows):
    for (h, alpha), curve in by_curve(rows).items():
        assert [row.length for row in curve] == list(LENGTHS)
        if h == "identity":
            assert slope(curve) is None
        elif h in POINTWISE:
            assert slope(curve) == pytest.approx(1 - alpha, abs=0.02)
        else:
            assert slope(curve) == pytest.approx(0, abs=0.06)  # sigmoid_bias only tends to a constant


def test_logits_of_the_recipe():
    """Of normalised vectors in the 63 dimensions that LayerNorm leaves; their products have a kurtosis of 3 * 63 / 65."""
    key = jax.random.key(0)
    head, none = (np.asarray(logits(key, 784, qk_norm), np.float64) for qk_norm in ("head", "none"))
    assert head.shape == (6, 256, 784)
    assert head.std() == pytest.approx(8 / math.sqrt(63), rel=0.01)
    assert none.std() == pytest.approx(1, rel=0.03)
    kurtosis = [(z**4).mean() / (z**2).mean() ** 2 for z in (head, none)]
    assert kurtosis[0] == pytest.approx(3 * 63 / 65, abs=0.03)
    assert kurtosis[1] > 3.03
    assert jax.eval_shape(lambda: logits(key, 3136)).shape == (6, 256, 3136)


def test_seeds_are_draws():
    few, more = (measure(("relu",), (1.0,), (47,), seeds)[0] for seeds in (1, 5))
    assert few.spread == 0
    assert 0 < more.spread < 0.1 * more.mean
    assert few.mean != more.mean


def test_a_real_process_writes_the_files(tmp_path):
    out = tmp_path / "new" / "folder"
    flags = ["--out", str(out), "--h", "relu,identity,softmax", "--alpha", "0,1", "--L", "196,49", "--seeds", "2"]
    command = [sys.executable, "-m", "vit_attn.analysis.init_scale", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "qk-layernorm head, 2 seeds" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["init_scale.csv", "init_scale.png", "init_scale.svg"]
    with open(out / "init_scale.csv", newline="") as handle:
        found = {(row["h"], row["alpha"], row["L"]): row for row in csv.DictReader(handle)}
    pairs = [("relu", "0.0"), ("relu", "1.0"), ("identity", "0.0"), ("identity", "1.0"), ("softmax", "")]
    assert list(found) == [(*pair, length) for pair in pairs for length in ("49", "196")]
    row = found["relu", "1.0", "196"]
    assert float(row["mean"]) * 196 == pytest.approx(float(row["mean_times_L"])) == pytest.approx(0.4, rel=0.05)
    assert (row["qk_norm"], row["seeds"]) == ("head", "2")
    with Image.open(out / "init_scale.png") as image:
        assert image.width > 1000
    text = " ".join(ElementTree.parse(out / "init_scale.svg").getroot().itertext())
    assert all(word in text for word in ("relu", "softmax", "49", "196", "identity: mean 0, no line"))


BAD = {
    "misspelt h": (["--h", "relu,rleu"], ["--h", "'rleu'", "'relu'", "softplus"]),
    "no h": (["--h", ""], ["--h", "''"]),
    "alpha nan": (["--alpha", "0,nan"], ["--alpha", "'nan'"]),
    "alpha text": (["--alpha", "big"], ["--alpha", "'big'"]),
    "alpha too large": (["--alpha", "5"], ["--alpha", "'5'", "-4 to 4"]),
    "length zero": (["--L", "49,0"], ["--L", "'0'", "from 1"]),
    "length not whole": (["--L", "49.5"], ["--L", "'49.5'"]),
    "length too long": (["--L", "1000000"], ["--L", "131072"]),
    "seeds": (["--seeds", "0"], ["--seeds", "'0'"]),
    "qk-norm": (["--qk-norm", "heads"], ["--qk-norm", "'heads'", "'head'"]),
    "unknown flag": (["--length", "49"], ["--length", "--help"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_flag_is_one_line_and_nothing_is_created(name, tmp_path, capsys):
    flags, words = BAD[name]
    assert exit_code_of(lambda: main([*flags, "--out", str(tmp_path / "out")])) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert exit_code_of(lambda: main(["--out", str(tmp_path / "file" / "deep")])) == 2
    assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
