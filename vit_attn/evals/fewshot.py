"""Few-shot linear probes of a representation on other data sets, as big_vision's fewshot_lsr (arXiv:2309.08586, section 4)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from vit_attn.data.decode import BadImageError
from vit_attn.data.passes import WHOLE_TO_CENTRE, Pass, View
from vit_attn.data.sources.faults import UnreachableError
from vit_attn.data.sources.source import Source
from vit_attn.evals.evaluator import Evaluator, Outputs, open_split
from vit_attn.evals.ridge import fit
from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.spec.data import SetSpec
from vit_attn.spec.errors import UserError
from vit_attn.spec.evals import FewshotSpec
from vit_attn.spec.run import Knobs, RunSpec, static_of

LABEL_THREADS = 16  # that read labels: from a bucket they wait most of the time
LABEL_PIECE = 512  # consecutive images


class Splits(NamedTuple):
    """Where support images are drawn from, and what is tested on."""

    train: str = "train"
    test: str = "test"
    version: str | None = None  # None: the newest one that is prepared


SETS = {
    "caltech_birds2011": Splits(),
    "caltech101": Splits(),
    "cars196": Splits(version="2.1.0"),
    "cifar100": Splits(),
    "dtd": Splits(),
    "colorectal_histology": Splits("train[:2000]", "train[2000:]"),
    "oxford_iiit_pet": Splits(),
    "uc_merced": Splits("train[:1000]", "train[1000:]"),
}


class Support(Sequence[int]):
    """The images of a train split that some seed draws for the largest number of shots, as their sorted indices.

    A seed has one generator, numpy's default_rng(seed). It permutes the images of class 0, which stand in the order of the
    split, then those of class 1 and so on; n shots are the first n of each class, or all where there are fewer.

    The labels of the whole split are read when the first index is asked for, by threads, without decoding an image; every
    process reads all of them, once, and keeps nothing on the disk. Pickled, this is the plain list of the indices.
    """

    def __init__(self, source: Source, shots: Sequence[int], seeds: Sequence[int], skip_bad: bool) -> None:
        self._source, self._shots, self._seeds, self._skip_bad = source, shots, seeds, skip_bad

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, at: Any) -> Any:
        return self.indices[at]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.indices,)

    @cached_property
    def labels(self) -> Int[np.ndarray, "N"]:
        """Of the train split; -1 for an image without one."""
        return read_labels(self._source, self._skip_bad)

    @cached_property
    def classes(self) -> int:
        return max(len(self._source.label_names or ()), int(self.labels.max()) + 1)

    @cached_property
    def drawn(self) -> dict[int, list[np.ndarray]]:
        """seed -> for each class the indices of the images, in the order in which they are taken."""
        if not self.classes:
            raise UserError(f"split {self._source.split!r} of data set {self._source.name} has no image with a label to draw")
        most = max(self._shots)
        return {seed: draw(self.labels, self.classes, most, seed) for seed in self._seeds}

    @cached_property
    def indices(self) -> list[int]:
        return np.unique(np.concatenate([mine for classes in self.drawn.values() for mine in classes])).tolist()


def draw(labels: Int[np.ndarray, "N"], classes: int, shots: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.flatnonzero(labels == one))[:shots] for one in range(classes)]


def read_labels(source: Source, skip_bad: bool) -> Int[np.ndarray, "N"]:
    """The label of each image, -1 for none; with `skip_bad` also for a record that is damaged. Raises UserError."""

    def label(index: int) -> int:
        try:
            return next(iter(source[index]["labels"]), -1)
        except BadImageError as error:
            if skip_bad:
                return -1
            raise UserError(
                f"{source.where(index)} cannot be read: {error} (config.data.on_bad_image=skip goes on without it)"
            ) from error

    def piece(start: int) -> list[int]:
        return [label(index) for index in range(start, min(start + LABEL_PIECE, len(source)))]

    with ThreadPoolExecutor(LABEL_THREADS, thread_name_prefix="labels") as pool:
        pieces = list(pool.map(piece, range(0, len(source), LABEL_PIECE)))
    return np.array([one for some in pieces for one in some], np.int64)


def fewshot(spec: RunSpec, prefix: str, own: FewshotSpec) -> Evaluator:
    """Raises UserError if none of the sets is there. Those that are missing are named in `notes`, with what prepares them."""
    sources, missing = _open_sets(spec, prefix, own)
    if not sources:
        raise UserError(
            f"config.evals.{prefix}: none of its data sets can be read (--config.evals.{prefix}=none goes on without it). "
            + "; ".join(missing.values())
        )
    skip_bad = spec.data.on_bad_image == "skip"
    supports = {name: Support(train, own.shots, own.seeds, skip_bad) for name, (train, _) in sources.items()}
    passes = {}
    for name, (train, test) in sources.items():
        passes[f"{name}/support"] = _pass(spec, own, train, supports[name])
        passes[f"{name}/test"] = _pass(spec, own, test, range(len(test)))
    steps = spec.eval.steps if own.steps is None else own.steps
    notes = [
        f"config.evals.{prefix}: {name} is missing, {prefix}/mean_* is over {len(sources)} of {len(own.sets)} sets: {why}"
        for name, why in missing.items()
    ]
    compute, measured = partial(outputs, static_of(spec)), partial(metrics, prefix, own, supports)
    return Evaluator(prefix, steps, "pre_logits", compute, passes, measured, notes)


def _open_sets(spec: RunSpec, prefix: str, own: FewshotSpec) -> tuple[dict[str, tuple[Source, Source]], dict[str, str]]:
    """(the (train, test) splits of the sets that are there, why the others are not)."""
    sources, missing = {}, {}
    data_dir, where = spec.data.data_dir if own.data_dir is None else own.data_dir, f"config.evals.{prefix}"
    for name in own.sets:
        one = SetSpec(name, SETS[name].version, data_dir, image_key="image", label_key="label", max_labels=1)
        train, test = (replace(one, split=split) for split in (SETS[name].train, SETS[name].test))
        try:
            sources[name] = open_split(spec, train, None, where), open_split(spec, test, None, where)
        except UnreachableError:  # it may be there: what the mean is over must not depend on the weather
            raise
        except UserError as error:
            missing[name] = str(error)
    return sources, missing


def _pass(spec: RunSpec, own: FewshotSpec, source: Source, indices: Sequence[int]) -> Pass:
    """Both sides resized, bilinearly, to config.evals.*.resize_pixels, then the centre: for support and test images alike."""
    size = spec.model.image_size
    view = View(size, "square", own.resize_pixels or round(WHOLE_TO_CENTRE * size), "bilinear")
    return Pass(source, view, spec.eval.batch_images, indices)


def outputs(spec: RunSpec, params: Any, knobs: Knobs, batch: dict[str, Array]) -> dict[str, Num[Array, "B ..."]]:
    """For each image what the head sees, its label (-1: none), and whether it is there."""
    _, seen = ViT(spec.model).apply({"params": params}, normalize(batch["image"]), knobs.attention)
    return {
        "features": seen["pre_logits"].astype(jnp.float32),
        "label": batch["labels"][:, 0],
        "mask": batch["mask"],
    }


def metrics(prefix: str, own: FewshotSpec, supports: dict[str, Support], passes: dict[str, list[Outputs]]) -> dict[str, float]:
    """Accuracy on the test splits: its mean and std over seeds, for each set and for the mean over the sets.

    The std divides by the number of seeds. Images that cannot be decoded are left out, where config.data.on_bad_image allows
    for them. A feature that is not finite makes a test image wrong; in a support image, all of them.
    """
    found = np.stack([accuracies(own, support, name, passes) for name, support in supports.items()])
    values = {f"{prefix}/sets": float(len(found))}
    for at, n in enumerate(own.shots):
        for name, of_seeds in zip(supports, found[:, :, at], strict=True):
            values |= {
                f"{prefix}/{name}/{n}shot": float(of_seeds.mean()),
                f"{prefix}/{name}/{n}shot_std": float(of_seeds.std()),
            }
        means = found[:, :, at].mean(axis=0)
        values |= {f"{prefix}/mean_{n}shot": float(means.mean()), f"{prefix}/mean_{n}shot_std": float(means.std())}
    return values


def accuracies(
    own: FewshotSpec, support: Support, name: str, passes: dict[str, list[Outputs]]
) -> Float[np.ndarray, "seeds shots"]:
    """Of the probes of one data set."""
    seen, test = (_joined(passes[f"{name}/{part}"]) for part in ("support", "test"))
    counted = (test["mask"] > 0) & (test["label"] >= 0)
    x, labels = test["features"][counted].astype(np.float64), test["label"][counted]
    found = np.zeros((len(own.seeds), len(own.shots)))
    for row, seed in enumerate(own.seeds):
        for column, shots in enumerate(own.shots):
            taken = np.concatenate([mine[:shots] for mine in support.drawn[seed]])
            places = np.searchsorted(support.indices, taken)
            places = places[seen["mask"][places] > 0]
            probe = fit(seen["features"][places], seen["label"][places], support.classes, own.l2)
            found[row, column] = probe.accuracy(x, labels) if probe else 0.0
    return found


def _joined(batches: list[Outputs]) -> Outputs:
    """Rows in the order of the pass, the padding of the last batch behind them."""
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
