"""Accuracy on a data set whose classes are a part of the head's, as ImageNet-1k by an ImageNet-21k head without fine-tuning.

An image's class is the best among those classes of the head that are the set's (arXiv:2309.08586, figure 1).
"""

import math
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vit_attn.data.sources.source import Source
from vit_attn.evals.classification import counts
from vit_attn.evals.evaluator import Evaluator, Outputs, complete, open_split, whole_pass
from vit_attn.evals.wordnet import few, ids_of, read_ids
from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.spec.errors import UserError
from vit_attn.spec.evals import LabelSubsetSpec
from vit_attn.spec.run import Knobs, RunSpec, static_of
from vit_attn.train.losses import multi_hot


@dataclass(frozen=True)
class Matching:
    """M of the set's C classes are classes of the head, too; they are numbered in the order of the set."""

    columns: Int[np.ndarray, "M"]  # of the head
    numbers: Int[np.ndarray, "C"]  # of the set's classes, 0 ... M - 1; -1 for those that the head lacks
    missing: list[str]  # the ids of these

    @property
    def digest(self) -> int:
        return zlib.crc32(self.columns.tobytes() + self.numbers.tobytes())


def match(head: list[str], own: list[str]) -> Matching:
    """Classes with the same id."""
    places = {one: at for at, one in enumerate(head)}
    common = [one for one in own if one in places]
    numbers = {one: at for at, one in enumerate(common)}
    return Matching(
        np.array([places[one] for one in common], np.int32),
        np.array([numbers.get(one, -1) for one in own], np.int32),
        [one for one in own if one not in places],
    )


def label_subset(spec: RunSpec, prefix: str, own: LabelSubsetSpec) -> Evaluator:
    """Raises UserError for ids that cannot be read, do not fit the classes, or have none in common."""
    where = f"config.evals.{prefix}"
    data = complete(spec, own.data)
    source = open_split(spec, data, None, f"{where}.data")
    matching = match(head_ids(spec, own, where), set_ids(source, own, where))
    if not len(matching.columns):
        raise UserError(
            f"{where}: no class of data set {source.name} is a class of the head: do {where}.head_ids and {where}.set_ids "
            "(or the label names of the data sets) hold the same kind of WordNet ids?"
        )
    max_labels = data.max_labels or 1
    one = whole_pass(spec, source, max_labels, None)
    steps = spec.eval.steps if own.steps is None else own.steps
    program = f"label_subset {matching.digest:08x} of {max_labels}"
    measured = partial(metrics, prefix, matching, own.missing == "wrong")
    compute = partial(outputs, static_of(spec), matching)
    return Evaluator(prefix, steps, program, compute, {"split": one}, measured, notes(where, source, matching, own.missing))


def head_ids(spec: RunSpec, own: LabelSubsetSpec, where: str) -> list[str]:
    """From the file, or else the label names of the training set."""
    setting, classes = f"{where}.head_ids", spec.model.num_classes
    if own.head_ids is None:
        return ids_of(open_split(spec, spec.data.split(spec.data.train_split), classes, "config.data"), setting)
    ids = read_ids(own.head_ids, setting)
    if len(ids) != classes:
        raise UserError(f"{setting}={own.head_ids!r} has {len(ids)} ids, but config.model.num_classes={classes}")
    return ids


def set_ids(source: Source, own: LabelSubsetSpec, where: str) -> list[str]:
    """From the file, or else the label names of the set."""
    setting = f"{where}.set_ids"
    if own.set_ids is None:
        return ids_of(source, setting)
    ids, names = read_ids(own.set_ids, setting), source.label_names
    if names is not None and len(ids) != len(names):
        raise UserError(f"{setting}={own.set_ids!r} has {len(ids)} ids, but data set {source.name} has {len(names)} classes")
    return ids


def notes(where: str, source: Source, matching: Matching, policy: str) -> list[str]:
    if not matching.missing:
        return []
    meaning = (
        "count as wrong ('ignore' leaves them out)" if policy == "wrong" else "are left out ('wrong' counts them as wrong)"
    )
    return [
        f"{where}: the head lacks {len(matching.missing)} of the {len(matching.numbers)} classes of data set {source.name}: "
        f"{few(matching.missing)}; with {where}.missing={policy!r} images of these {meaning}"
    ]


def outputs(spec: RunSpec, matching: Matching, params: Any, knobs: Knobs, batch: dict[str, Array]) -> dict[str, Array]:
    """For each image [B]: does it count, is it of classes that the head lacks only, its largest label, and hits.

    The hits: is the best, is one of the five best logits among those of the M common classes one of its labels.
    """
    logits, _ = ViT(spec.model).apply({"params": params}, normalize(batch["image"]), knobs.attention)
    labels, classes = batch["labels"], len(matching.columns)
    known = (labels >= 0) & (labels < len(matching.numbers))
    numbers = jnp.where(known, jnp.asarray(matching.numbers)[jnp.where(known, labels, 0)], -1)
    best = jax.lax.top_k(logits[:, matching.columns], min(5, classes))[1]
    hits = jnp.take_along_axis(multi_hot(numbers, classes), best, axis=-1) > 0
    return {
        "counts": counts(labels, batch["mask"]),
        "missing": (numbers < 0).all(axis=-1),
        "largest": labels.max(axis=-1),
        "accuracy": hits[:, 0].astype(jnp.float32),
        "top5": hits.any(axis=-1).astype(jnp.float32),
    }


def metrics(prefix: str, matching: Matching, missing_is_wrong: bool, passes: dict[str, list[Outputs]]) -> dict[str, float]:
    """Means over the images that count. Of an image with several labels any is a hit, and it is missing if all of them are."""
    batches = passes["split"]
    columns = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    labelled, missing, classes = columns["counts"], columns["missing"], len(matching.numbers)
    if (beyond := columns["largest"][labelled].max(initial=-1)) >= classes:
        raise UserError(
            f"config.evals.{prefix}: an image has the label {beyond}, but only {classes} ids of the set's classes are known: "
            f"see config.evals.{prefix}.set_ids"
        )
    counted = labelled if missing_is_wrong else labelled & ~missing
    images = int(counted.sum())
    return {
        **{f"{prefix}/{key}": math.fsum(columns[key][counted]) / max(images, 1) for key in ("accuracy", "top5")},
        f"{prefix}/images": float(images),
        f"{prefix}/classes": float(len(matching.columns)),
        f"{prefix}/missing_classes": float(len(matching.missing)),
        f"{prefix}/missing_images": float((labelled & missing).sum()),
    }
