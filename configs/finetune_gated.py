"""A trained run continued with gated attention (arXiv:2306.12929, section B.6, Table 9): does a gate still tame its outliers?

    python -m vit_attn.main --config configs/finetune_gated.py:run=runs/vanilla --workdir runs/gated
    python -m vit_attn.main --config configs/finetune_gated.py:run=runs/vanilla,gate=none --workdir runs/control

The settings are those of RUN/config.json, its newest checkpoint is where this one starts. The gates' output is divided by
pi_init, so that with weights of 0 (std=0) the first step sees exactly the trained network. The paper (OPT-1.3B): 4,000 steps,
a tenth of them warm-up, gate linear at pi_init 0.5, weights of 0.01 (BERT) and 0.001 (OPT); it adds an unnamed regulariser,
which is left out here. Steps and learning rate are ours: a tenth of the run's.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from configs.common import parse_arg

GATES = ("linear", "mlp", "all_heads", "none")


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: run (a directory), gate, pi_init, std (of the gate's weights), steps, lr (0: a tenth of the run's), seed."""
    a = parse_arg(arg, run="", gate="linear", pi_init=0.5, std=0.001, steps=0, lr=0.0, seed=0)
    file = Path(a["run"]) / "config.json"
    if not a["run"] or not file.is_file():
        raise ValueError(f"argument run={a['run']!r} must be the directory of a run, with a config.json in it")
    config = ConfigDict(json.loads(file.read_text()))
    if a["gate"] not in GATES:
        raise ValueError(f"argument gate={a['gate']!r} must be one of {', '.join(GATES)}")
    if (there := config.model.attention.gate) != "none":
        raise ValueError(f"argument run={a['run']!r} is a run with gates already (gate={there}): take one without")
    steps = a["steps"] or max(config.train.steps // 10, 1)

    config.seed = a["seed"]
    config.init_from = a["run"]
    config.model.attention.gate = a["gate"]
    if a["gate"] != "none":
        config.model.attention.update({"pi_init": a["pi_init"], "gate_std": a["std"], "gate_rescale": True})
    config.train.update({"steps": steps, "epochs": None, "epoch_images": None, "warmup_steps": steps // 10})
    config.train.peak_lr = a["lr"] or config.train.peak_lr / 10
    config.eval.steps = max(steps // 2, 1)
    return config
