"""Runs big_vision itself on the inputs of golden_inputs.py and writes big_vision_golden.json beside this file.

python tests/interop/make_big_vision_golden.py PATH_TO_BIG_VISION

PATH_TO_BIG_VISION: a git checkout. Its own modules compute everything: models/vit.py, optax.py, utils.py, the config
vit_s16_i1k. Nothing of vit_attn is imported. Numbers are float32 on a CPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import golden_inputs as inputs
import jax
import jax.numpy as jnp
import numpy as np
import optax


def main(path):
    sys.path.insert(0, path)
    import big_vision.optax as bv_optax
    from big_vision import utils
    from big_vision.configs import vit_s16_i1k
    from big_vision.models import vit

    commit = subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    golden = {
        "big_vision": commit,
        "jax": jax.__version__,
        "forward": {name: forward(vit, utils, case) for name, case in inputs.CASES.items()},
        "training": training(vit, utils, bv_optax, vit_s16_i1k.get_config()),
    }
    file = Path(__file__).with_name("big_vision_golden.json")
    lines = [f" {json.dumps(key)}: {json.dumps(shortened(value))}" for key, value in golden.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"wrote {file}")


def model_and_parameters(vit, **settings):
    model = vit.Model(inputs.CLASSES, **{**settings, **inputs.SIZES})
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, inputs.SIDE, inputs.SIDE, 3)))["params"]
    values = inputs.parameters({name: leaf.shape for name, leaf in flat(shapes).items()})
    return model, jax.tree_util.tree_map_with_path(lambda path, _: jnp.asarray(values[joined(path)]), shapes)


def forward(vit, utils, case):
    """Logits and losses of one batch."""
    model, params = model_and_parameters(vit, pool_type=case["pool"], posemb=case["posemb"], rep_size=case["rep_size"])
    images, classes = inputs.images_and_labels(0)
    logits, _ = model.apply({"params": params}, inputs.as_floats(images))
    labels = utils.onehot(jnp.asarray(classes), inputs.CLASSES)
    losses = {name: float(getattr(utils, name)(logits=logits, labels=labels)) for name in inputs.LOSSES}
    return {"logits": np.asarray(logits, np.float64).tolist(), **losses}


def training(vit, utils, bv_optax, config):
    """What train.py's update_fn does, STEPS times; only the number of steps and of warm-up steps are not the config's."""
    model, params = model_and_parameters(vit, **config.model)
    config.schedule.warmup_steps = inputs.WARMUP_STEPS
    tx, _ = bv_optax.make(config, params, sched_kw={"total_steps": inputs.TOTAL_STEPS})

    @jax.jit  # as theirs: operation by operation, bfloat16 moments are rounded more often
    def update(params, opt, pixels, labels):
        def loss_fn(params):
            logits, _ = model.apply({"params": params}, pixels, train=True)
            return getattr(utils, config.loss)(logits=logits, labels=labels)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt = tx.update(grads, opt, params)
        params = optax.apply_updates(params, updates)
        norms = {f"l2_{name}": norm(tree) for name, tree in (("grads", grads), ("updates", updates), ("params", params))}
        return params, opt, {"training_loss": loss, **norms}

    opt, rows = tx.init(params), []
    for step in range(inputs.STEPS):
        images, classes = inputs.images_and_labels(step)
        mixup = utils.get_mixup(jax.random.fold_in(jax.random.PRNGKey(0), step), config.mixup.p)
        labels = utils.onehot(jnp.asarray(classes), inputs.CLASSES)
        _, (pixels, labels, one), _ = mixup(jnp.asarray(inputs.as_floats(images)), labels, jnp.asarray([1.0, 0.0]))
        params, opt, measured = update(params, opt, pixels, labels)
        row = {name: float(x) for name, x in {"share": one[0], **measured}.items()}
        rows.append({**row, "projections": list(inputs.projections(flat(params)).values())})
    return rows


def shortened(value):
    """Nine digits: all that a float32 has."""
    if isinstance(value, dict):
        return {key: shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shortened(inner) for inner in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def norm(tree):
    return jnp.sqrt(sum(jnp.sum(x * x) for x in jax.tree.leaves(tree)))


def flat(tree):
    return {joined(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def joined(path):
    return "/".join(key.key for key in path)


if __name__ == "__main__":
    main(sys.argv[1])
