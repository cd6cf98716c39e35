"""What was measured of a run after its training, as metrics of reports."""

import json

from vit_attn.report.aftermath import aftermath
from vit_attn.spec.quant import QuantSpec, as_values


def write(file, step, metrics, **config):
    file.parent.mkdir(parents=True)
    values = as_values(QuantSpec(**config)) if config else None
    file.write_text(json.dumps({"step": step, "metrics": metrics} | ({"config": values} if config else {})))


def test_results_are_told_apart_by_their_folder(tmp_path):
    """And those of another checkpoint than the newest do not count."""
    six = {"weight_bits": 6, "activation_bits": 6}
    metrics = lambda accuracy: {"quant/w6a6/accuracy": accuracy, "quant/w6a6/mse/accuracy": accuracy, "quant/float32/loss": 1.0}
    write(tmp_path / "quant/w6a6/results.json", 150, metrics(0.5), **six)
    write(tmp_path / "quant/w6a6_without_head/results.json", 150, metrics(0.6), exclude=("head/*",), **six)
    write(tmp_path / "quant/w8a8/results.json", 100, {"quant/w8a8/accuracy": 0.7}, weight_bits=8)
    write(tmp_path / "outliers/outliers.json", 150, {"outliers/kurtosis": 3, "outliers/name": "x"})
    assert aftermath(tmp_path, 150) == {
        "quant/w6a6/accuracy": 0.5,
        "quant/w6a6/mse/accuracy": 0.5,
        "quant/w6a6_without_head/accuracy": 0.6,
        "quant/w6a6_without_head/mse/accuracy": 0.6,
        "quant/float32/loss": 1.0,
        "outliers/kurtosis": 3.0,
    }
    assert aftermath(tmp_path, 100) == {"quant/w8a8/accuracy": 0.7}
    (tmp_path / "outliers/outliers.json").write_text("[]")
    assert "outliers/kurtosis" not in aftermath(tmp_path, 150)
