"""The whole protocol against plain loops; images through the real machinery, in batches of any size, on 1 and 8 devices."""

import functools
import pickle

import jax
import numpy as np
import pytest
from fewshot_oracle import batched, made_up, protocol_by_loops
from imagenet_sets import write_fewshot

from vit_attn.data.decode import BadImageError
from vit_attn.data.passes import View
from vit_attn.data.sources.faults import UnreachableError
from vit_attn.data.workers import Workers
from vit_attn.evals import fewshot as module
from vit_attn.evals.fewshot import SETS, Support, draw, fewshot, metrics, read_labels
from vit_attn.loop.evaluation import evaluate
from vit_attn.loop.program import Program
from vit_attn.models.vit import ViT
from vit_attn.parallel.mesh import make_mesh, replicated
from vit_attn.spec.errors import UserError
from vit_attn.spec.evals import FEWSHOT_SETS, FewshotSpec
from vit_attn.spec.mesh import RULES, MeshSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of


class Labelled:
    """A split whose images are no images: whoever decodes one fails."""

    name, split, label_names = "memory/1.0.0", "train", None

    def __init__(self, labels, broken=()):
        self.labels, self.broken, self.asked = labels, broken, []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.asked.append(index)
        if index in self.broken:
            raise BadImageError("it was hit by a truck")
        label = self.labels[index]
        return {"image": b"", "labels": [] if label < 0 else [int(label)]}

    def where(self, index):
        return f"example {index} of memory"

    def identity(self, index):
        return f"memory {index}"

    def order(self, position, seed):
        raise AssertionError


@pytest.mark.parametrize("size", [7, 16, 1000])
def test_metrics_are_those_of_plain_loops(size):
    own = FewshotSpec(sets=("dtd", "cifar100"), shots=(1, 3, 25), seeds=(0, 1, 5), l2=(2.0**10,))
    sets = {name: made_up(seed) for seed, name in enumerate(own.sets)}
    supports, passes, wanted = {}, {}, np.zeros((2, 3, 3))
    for at, (name, (x, labels, y, test_labels)) in enumerate(sets.items()):
        supports[name] = Support(Labelled(labels), own.shots, own.seeds, False)
        union = list(supports[name])
        passes[f"{name}/support"] = list(batched(x[union], labels[union], size))
        passes[f"{name}/test"] = list(batched(y, test_labels, size))
        for row, seed in enumerate(own.seeds):
            for column, shots in enumerate(own.shots):
                wanted[at, row, column] = protocol_by_loops(x, labels, y, test_labels, 6, shots, seed, 2.0**10)
    got = metrics("few", own, supports, passes)
    assert got.pop("few/sets") == 2
    assert len(np.unique(wanted)) > 9
    for column, shots in enumerate(own.shots):
        for at, name in enumerate(own.sets):
            assert got.pop(f"few/{name}/{shots}shot") == pytest.approx(wanted[at, :, column].mean(), abs=1e-12)
            assert got.pop(f"few/{name}/{shots}shot_std") == pytest.approx(wanted[at, :, column].std(), abs=1e-12)
        assert got.pop(f"few/mean_{shots}shot") == pytest.approx(wanted[:, :, column].mean(), abs=1e-12)
        assert got.pop(f"few/mean_{shots}shot_std") == pytest.approx(wanted[:, :, column].mean(0).std(), abs=1e-12)
    assert not got


def test_images_that_cannot_be_decoded_are_left_out():
    own = FewshotSpec(sets=("dtd",), shots=(3,), seeds=(2,))
    x, labels, y, test_labels = made_up()
    support = Support(Labelled(labels), own.shots, own.seeds, True)
    union, bad = list(support), (1, 4)
    passes = {
        "dtd/support": list(batched(x[union], labels[union], 5, masked=bad)),
        "dtd/test": list(batched(y, test_labels, 5, masked=(0, 42))),
    }
    left_out = [union[place] for place in bad]
    wanted = protocol_by_loops(x, labels, y[1:-1], test_labels[1:-1], 6, 3, 2, 2.0**10, left_out)
    assert metrics("few", own, {"dtd": support}, passes)["few/dtd/3shot"] == pytest.approx(wanted, abs=1e-12)
    assert wanted != protocol_by_loops(x, labels, y, test_labels, 6, 3, 2, 2.0**10)


def test_features_that_are_not_finite_are_wrong():
    own = FewshotSpec(sets=("dtd",), shots=(3,), seeds=(2,))
    x, labels, y, test_labels = made_up()
    support = Support(Labelled(labels), own.shots, own.seeds, False)
    union = list(support)

    def accuracy(x, y):
        passes = {
            "dtd/support": list(batched(x[union], labels[union], 8)),
            "dtd/test": list(batched(y, test_labels, 8)),
        }
        return metrics("few", own, {"dtd": support}, passes)["few/dtd/3shot"]

    good = accuracy(x, y)
    hit = next(row for row in range(len(y)) if accuracy(x, np.where(np.arange(len(y))[:, None] == row, np.nan, y)) < good)
    spoilt = y.copy()
    spoilt[hit, 0] = np.inf
    assert accuracy(x, spoilt) == pytest.approx(good - 1 / len(y))
    x[union[0], 0] = np.nan
    assert accuracy(x, y) == 0.0


def test_draws_are_prefixes_of_one_permutation():
    labels = made_up()[1]
    rng = np.random.default_rng(3)
    for one, mine in enumerate(draw(labels, 6, 1000, 3)):
        wanted = rng.permutation(np.flatnonzero(labels == one))
        np.testing.assert_array_equal(mine, wanted)
        np.testing.assert_array_equal(draw(labels, 6, 2, 3)[one], wanted[:2])
    assert len(draw(labels, 6, 25, 3)[5]) == 2  # fewer where there are fewer


def test_support_is_the_union_over_seeds_and_reads_labels_when_asked():
    labels = made_up()[1]
    labels[7] = -1
    source = Labelled(labels)
    support = Support(source, (1, 2), (0, 4), False)
    assert not source.asked
    wanted = sorted({int(i) for seed in (0, 4) for mine in draw(labels, 6, 2, seed) for i in mine})
    assert list(support) == wanted
    assert len(support) == len(wanted) < 61
    assert sorted(source.asked) == list(range(61))
    assert pickle.loads(pickle.dumps(support)) == wanted


def test_labels_of_many_images_come_in_order():
    labels = np.random.default_rng(0).integers(0, 99, 5003)
    np.testing.assert_array_equal(read_labels(Labelled(labels), False), labels)


def test_records_that_cannot_be_read():
    labels = np.array([0, 1, 1, 0])
    np.testing.assert_array_equal(read_labels(Labelled(labels, broken=(2,)), True), [0, 1, -1, 0])
    with pytest.raises(
        UserError, match=r"example 2 of memory cannot be read: it was hit by a truck \(config.data.on_bad_image"
    ):
        read_labels(Labelled(labels, broken=(2,)), False)
    with pytest.raises(UserError, match="has no image with a label"):
        list(Support(Labelled(np.array([-1, -1])), (1,), (0,), False))


def test_the_eight_sets():
    assert tuple(SETS) == FEWSHOT_SETS
    sliced = {"colorectal_histology": 2000, "uc_merced": 1000}
    for name, splits in SETS.items():
        at = sliced.get(name)
        assert (splits.train, splits.test) == (("train", "test") if at is None else (f"train[:{at}]", f"train[{at}:]"))
        assert splits.version == ("2.1.0" if name == "cars196" else None)


MODEL = {"variant": "mu/14", "image_size": 28, "num_classes": 10, "attention": {"h": "relu", "alpha": 1.0}}
TRAIN = {"batch_images": 8, "steps": 1}
OWN = {"type": "fewshot", "sets": ("dtd", "uc_merced"), "shots": (1, 2), "seeds": (0, 5), "l2": (2.0**10,)}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Of 11 classes two or three have the same colour, so that they are hard to tell apart."""
    root = tmp_path_factory.mktemp("sets")
    write_fewshot(root, "dtd", classes=11, per_class=7)
    write_fewshot(root, "uc_merced", classes=11, per_class=6)
    write_fewshot(root, "cars196", classes=2, per_class=1, file_format="tfrecord")
    return root


@pytest.fixture
def shorter(monkeypatch):
    """The tiny uc_merced has 66 images."""
    monkeypatch.setitem(SETS, "uc_merced", module.Splits("train[:37]", "train[37:]"))


def spec_of(data_dir, batch_images, **own):
    values = {**OWN, "data_dir": str(data_dir), **own}
    return resolve({"model": MODEL, "train": TRAIN, "eval": {"batch_images": batch_images}, "evals": {"few": values}})


@functools.cache
def params_of():
    spec = resolve({"model": MODEL, "train": TRAIN})
    images = jax.numpy.zeros((1, 28, 28, 3))
    return jax.jit(ViT(spec.model).init)(jax.random.key(3), images, knobs_of(spec).attention)["params"]


class EvaluatesOnly(Program):
    """Compiles nothing of training, which takes most of the time."""

    def __init__(self, mesh, evaluator):
        self.mesh, self._rules = mesh, RULES
        self._compiled = {evaluator.program: jax.jit(evaluator.compute, out_shardings=replicated(mesh))}


def run(spec, devices, processes=0, whole=False):
    evaluator = fewshot(spec, "few", spec.evals["few"])
    mesh = make_mesh(MeshSpec(), jax.devices()[:devices])
    program = Program(spec, mesh, [evaluator], fresh=False) if whole else EvaluatesOnly(mesh, evaluator)
    knobs = program.knobs(knobs_of(spec))
    params = jax.device_put(params_of(), jax.tree.leaves(knobs)[0].sharding)
    workers = Workers(processes, 2)
    try:
        return evaluate(evaluator, [(params, knobs)], program, spec.data, workers, lambda: "")[0]
    finally:
        workers.close()


def features_by_hand(spec, source):
    view = View(28, "square", 32, "bilinear")
    images = np.stack([view(source[i]["image"]) for i in range(len(source))]).astype(np.float32) / 127.5 - 1
    _, seen = jax.jit(ViT(spec.model).apply)({"params": params_of()}, images, knobs_of(spec).attention)
    return np.asarray(seen["pre_logits"]), np.array([source[i]["labels"][0] for i in range(len(source))])


@pytest.mark.usefixtures("shorter")
def test_prepared_sets_in_batches_of_any_size_on_any_devices(data_dir):
    spec = spec_of(data_dir, 16)
    evaluator = fewshot(spec, "few", spec.evals["few"])
    wanted = {}
    for name in OWN["sets"]:
        train, test = (evaluator.passes[f"{name}/{part}"].source for part in ("support", "test"))
        assert (train.split, test.split) == {"dtd": ("train", "test"), "uc_merced": ("train[:37]", "train[37:]")}[name]
        assert len(evaluator.passes[f"{name}/support"].indices) < len(train)
        x, y = features_by_hand(spec, train), features_by_hand(spec, test)
        classes = len(train.label_names)
        for shots in OWN["shots"]:
            found = [protocol_by_loops(*x, *y, classes, shots, seed, 2.0**10) for seed in OWN["seeds"]]
            wanted[f"few/{name}/{shots}shot"] = np.mean(found)
    assert len({round(value, 6) for value in wanted.values()}) == 4
    first = run(spec, 1)
    assert {key: first[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
    assert first["few/sets"] == 2
    for batch_images, devices in ((7, 1), (1000, 1), (16, 8)):
        assert run(spec_of(data_dir, batch_images), devices, whole=devices == 8) == first


@pytest.mark.usefixtures("shorter")
def test_worker_processes_and_tfrecord_make_no_difference(data_dir, monkeypatch):
    monkeypatch.setitem(SETS, "cars196", module.Splits())
    spec = spec_of(data_dir, 16, sets=("dtd", "cars196"), shots=(1,))
    assert run(spec, 1, processes=1) == run(spec, 1)


@pytest.mark.usefixtures("shorter")
def test_sets_that_are_missing(data_dir):
    spec = spec_of(data_dir, 16, sets=("dtd", "caltech101", "uc_merced"))
    evaluator = fewshot(spec, "few", spec.evals["few"])
    assert list(evaluator.passes) == ["dtd/support", "dtd/test", "uc_merced/support", "uc_merced/test"]
    (note,) = evaluator.notes
    assert note.startswith("config.evals.few: caltech101 is missing, few/mean_* is over 2 of 3 sets: ")
    assert "config.evals.few.data_dir" in note
    assert f"tfds.builder('caltech101', data_dir={str(data_dir)!r}" in note
    spec = spec_of(data_dir, 16, sets=("caltech101", "oxford_iiit_pet"))
    with pytest.raises(UserError, match=r"config.evals.few: none of its data sets .*'caltech101'.*'oxford_iiit_pet'"):
        fewshot(spec, "few", spec.evals["few"])


def test_a_set_of_another_version_is_missing(data_dir, monkeypatch):
    monkeypatch.setitem(SETS, "cars196", module.Splits(version="9.1.7"))
    spec = spec_of(data_dir, 16, sets=("dtd", "cars196"))
    assert "9.1.7" in fewshot(spec, "few", spec.evals["few"]).notes[0]


def test_a_set_that_cannot_be_reached_is_not_just_missing(data_dir, monkeypatch):
    def away(*_):
        raise UnreachableError("the network is away")

    monkeypatch.setattr(module, "open_split", away)
    spec = spec_of(data_dir, 16)
    with pytest.raises(UnreachableError, match="the network is away"):
        fewshot(spec, "few", spec.evals["few"])


@pytest.mark.usefixtures("shorter")
def test_how_images_are_seen(data_dir):
    for pixels, wanted in ((0, 32), (28, 28), (49, 49)):
        spec = spec_of(data_dir, 16, resize_pixels=pixels)
        views = {one.view for one in fewshot(spec, "few", spec.evals["few"]).passes.values()}
        assert views == {View(28, "square", wanted, "bilinear")}
