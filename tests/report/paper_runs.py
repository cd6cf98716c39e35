"""Run directories as the papers' grids would leave them, with numbers from formulas: what is too expensive to train.

python -m tests.report.paper_runs FOLDER [SEEDS]   # 323 members a seed, in one directory a figure
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

from vit_attn.spec.resolve import resolve
from vit_attn.store.run_dir import RunDir

HS = ("relu", "relu2", "gelu", "softplus", "identity", "relu6", "sigmoid")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
HOURS = {"S/32": 40.0, "S/16": 110.0, "S/8": 600.0, "B/32": 150.0, "B/16": 330.0, "L/16": 1050.0}
EXPONENT = 0.16  # of the error against core-hours
SLOWER = 1.25  # core-hours that relu / L needs over softmax's, at the same error


def error_of(hours, slower=1.0):
    """In percent, at so many core-hours."""
    return 56.0 * (hours / slower) ** -EXPONENT


def accuracy_of(h, alpha, size, best=0.95):
    """In percent: a parabola about `best`, that of softmax a level."""
    height = 100 - error_of(HOURS[size], 1.0 if h == "softmax" else SLOWER)
    return height if h == "softmax" else height - (1.5 + 0.4 * HS.index(h)) * (alpha - best) ** 2


def write_run(folder, name, settings, metrics, state="done", step=100):
    """`settings` by dotted names. Returns the run directory."""
    values = {"data": {"name": "imagenet2012"}, "train": {"steps": 100}}
    for key, value in settings.items():
        *sections, last = key.split(".")
        at = values
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = value
    run = RunDir(Path(folder) / name)
    run.create(resolve(values))
    if state != "waiting":
        message = f"diverged at step {step}" if state == "diverged" else ""
        run.write_status(state, step=step, steps=100, metrics=metrics, message=message)
    return run


def member(folder, h, size, seed, alpha=None, accuracy=0.5, hours=1.0, more=None, metrics=None, state="done", step=100):
    a = "model.attention"
    settings = {f"{a}.h": h, "model.variant": size, "seed": seed, **(more or {})}
    if alpha is not None:
        settings[f"{a}.alpha"] = alpha
    words = [h, size.replace("/", "-"), *([f"a{alpha}"] if alpha is not None else [])]
    words += [str(value).replace("/", "-") for value in (more or {}).values()]
    found = {"val/accuracy": accuracy, "val/loss": 1.0, "speed/core_hours": hours, **(metrics or {})}
    return write_run(folder, "_".join([*words, f"seed{seed}"]), settings, found, state, step)


def scaling(folder, seeds):
    """Figure 1, with numbers that follow one power law exactly but for the seeds."""
    for seed in range(seeds):
        for size in ("S/32", "S/16", "B/32", "B/16", "L/16"):
            for h, alpha, slower in (("softmax", None, 1.0), ("relu", 1.0, SLOWER)):
                accuracy = (100 - error_of(HOURS[size], slower) + noise(seed, h, size)) / 100
                few = {"fewshot/mean_10shot": accuracy + 0.03}
                member(folder, h, size, seed, alpha, accuracy, HOURS[size], {"data.name": "imagenet21k"}, few)


def alphas(folder, seeds, hs=HS, names=("imagenet21k", "imagenet2012"), more=None, shift=0.0, cost=1.0, softmax=True):
    """Figure 2; with `more` settings, and the best alpha moved by `shift`, the other half of figures 3 and 4."""
    for seed in range(seeds):
        for name in names:
            for size in ("S/32", "S/16", "S/8"):
                also = {**(more or {}), "data.name": name, "model.pool": "gap" if name == "imagenet21k" else "tok"}
                grid = [(h, alpha) for h in hs for alpha in ALPHAS]
                for h, alpha in [*([("softmax", None)] if softmax else []), *grid]:
                    accuracy = accuracy_of(h, alpha, size, 0.95 + shift) + noise(seed, h, size, alpha, more)
                    bad = h == "relu2" and alpha == 0.0 and size == "S/8"
                    member(
                        *(folder, h, size, seed, alpha, accuracy / 100, HOURS[size] * cost, also),
                        **({"state": "diverged", "step": 30} if bad else {}),
                    )


def outliers(folder, seeds):
    """Tables 7 and 8: the paper's own numbers of some rows, W8A8 as quantization will leave it."""
    a = "model.attention"
    rows = [
        ({f"{a}.h": "softmax"}, 80.75, 358.5, 1018.3, 69.24),
        *(({f"{a}.h": "clipped_softmax", f"{a}.gamma": g}, 80.3, 70.0, 25.0, 78.7) for g in (-0.003, -0.004)),
        *(
            ({f"{a}.h": "clipped_softmax", f"{a}.gamma": g, f"{a}.zeta": z}, 78.3, 119, 30, 76.4)
            for g, z in ((-0.003, 1.003), (0, 1.01))
        ),
        *(({f"{a}.h": "softmax", f"{a}.gate": "linear", f"{a}.pi_init": p}, 80.5, 87.0, 25.0, 79.0) for p in (0.25, 0.5)),
        ({f"{a}.h": "softmax", f"{a}.gate": "mlp"}, 80.62, 118.2, 47.8, 78.79),
    ]
    for norm in ("none", "patches"):
        for i, (settings, accuracy, inf_norm, kurtosis, w8a8) in enumerate(rows):
            for seed in range(seeds):
                moved = {"model.patch_norm": norm, "model.variant": "S/16", "model.pool": "tok", "seed": seed, **settings}
                spread = 1 + 0.02 * noise(seed, i, norm)
                norms = {"outliers/max_inf_norm": inf_norm * spread, "outliers/kurtosis": kurtosis * spread}
                metrics = {"val/accuracy": accuracy / 100 + 0.001 * seed, "speed/core_hours": 100.0, **norms}
                run = write_run(folder, f"row{i}_{norm}_seed{seed}", moved, metrics)
                (run.path / "quant/w8a8").mkdir(parents=True)
                results = {"step": 100, "metrics": {"quant/w8a8/accuracy": w8a8 / 100}}
                (run.path / "quant/w8a8/results.json").write_text(json.dumps(results))


def noise(*key):
    """The same number about 0 for the same key: some tenths of a percent."""
    return 0.25 * float(np.random.default_rng([ord(c) for c in str(key)]).standard_normal())


def write_all(folder, seeds):
    folder = Path(folder)
    scaling(folder / "fig1", seeds)
    alphas(folder / "fig2", seeds)
    two = {"hs": ("relu", "relu2"), "names": ("imagenet21k",)}
    alphas(folder / "fig3", seeds, **two, more={"model.attention.qk_norm": "none"}, shift=-0.05)
    alphas(folder / "fig4", seeds, **two, more={"model.attention.gate": "gau"}, cost=1.093, softmax=False)
    outliers(folder / "table", seeds)
    return [folder / name for name in ("fig1", "fig2", "fig3", "fig4", "table")]


if __name__ == "__main__":
    write_all(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    print(math.fsum(1 for _ in Path(sys.argv[1]).glob("*/*/config.json")))
