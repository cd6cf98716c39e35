"""Classes matched by their WordNet ids, against plain loops over the images."""

import functools

import jax
import numpy as np
import pytest
from imagenet_sets import i21k_classes, imagenet_classes
from tfds_sets import encode, write_set

from vit_attn.data.workers import Workers
from vit_attn.evals.label_subset import head_ids, label_subset, match, metrics, outputs, set_ids
from vit_attn.evals.table import EVALUATORS
from vit_attn.evals.wordnet import ids_of, read_ids
from vit_attn.loop.evaluation import evaluate
from vit_attn.loop.program import Program
from vit_attn.models.vit import ViT
from vit_attn.parallel.mesh import make_mesh, replicated
from vit_attn.spec.errors import UserError
from vit_attn.spec.evals import LabelSubsetSpec
from vit_attn.spec.mesh import MeshSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of

HEAD = [f"n{number:08d}" for number in (3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43)]
OWN = [HEAD[7], "n77777777", HEAD[2], HEAD[11], "n66666666", HEAD[0], HEAD[5], HEAD[12], HEAD[8]]
MODEL = {"variant": "mu/4", "image_size": 8, "num_classes": len(HEAD), "attention": {"h": "relu", "alpha": 1.0}}


class Named:
    """Of a source only what its classes are called."""

    name, split = "memory/1.0.0", "validation"
    __len__ = __getitem__ = where = identity = order = lambda *_: 0

    def __init__(self, label_names):
        self.label_names = label_names


def spec_of(batch_images=8, **own):
    values = {"type": "label_subset", "data": {}, **own}
    data = {"name": "head", "train_split": "train", "data_dir": own.get("data", {}).get("data_dir", "embedded")}
    train = {"batch_images": 8, "steps": 1}
    return resolve(
        {"model": MODEL, "data": data, "train": train, "eval": {"batch_images": batch_images}, "evals": {"sub": values}}
    )


@functools.cache
def params_of(scale=1.0):
    spec = resolve({"model": MODEL})
    images = jax.numpy.zeros((1, 8, 8, 3))
    params = jax.jit(ViT(spec.model).init)(jax.random.key(0), images, knobs_of(spec).attention)["params"]
    params["head"]["kernel"] = scale * jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    return params


def logits_of(spec, images):
    return np.asarray(
        jax.jit(ViT(spec.model).apply)(
            {"params": params_of()}, images.astype(np.float32) / 127.5 - 1, knobs_of(spec).attention
        )[0]
    )


def by_loops(logits, labels, own, missing):
    """The definition, image by image; `labels`: the ids' places in `own`, one list an image."""
    hits, five, images, lost = [], [], 0, 0
    allowed = [at for at, one in enumerate(HEAD) if one in own]
    for row, mine in zip(logits, labels, strict=True):
        if not mine:
            continue
        absent = all(own[label] not in HEAD for label in mine)
        lost += absent
        if absent and missing == "ignore":
            continue
        images += 1
        best = sorted(allowed, key=lambda at: -row[at])
        right = {own[label] for label in mine}
        hits.append(HEAD[best[0]] in right)
        five.append(any(HEAD[at] in right for at in best[:5]))
    return {"accuracy": np.mean(hits), "top5": np.mean(five), "images": images, "missing_images": lost}


def in_batches(images, labels, size, room):
    for start in range(0, len(images), size):
        real = images[start : start + size]
        mask = np.zeros(size, np.float32)
        mask[: len(real)] = 1
        columns = np.full((size, room), -1, np.int32)
        for at, mine in enumerate(labels[start : start + size]):
            columns[at, : len(mine)] = mine
        padded = np.concatenate([real, np.zeros((size - len(real), 8, 8, 3), np.uint8)])
        yield {"image": jax.numpy.asarray(padded), "labels": jax.numpy.asarray(columns), "mask": jax.numpy.asarray(mask)}


def found_in(spec, matching, batches):
    compute = jax.jit(functools.partial(outputs, spec, matching))
    return [jax.device_get(compute(params_of(), knobs_of(spec), one)) for one in batches]


@pytest.mark.parametrize("policy", ["wrong", "ignore"])
@pytest.mark.parametrize("room", [1, 3])
def test_any_batch_size_gives_what_plain_loops_give(policy, room):
    spec, matching = spec_of(), match(HEAD, OWN)
    rng = np.random.default_rng(room)
    images = rng.integers(0, 256, (59, 8, 8, 3), dtype=np.uint8)
    labels = [rng.choice(len(OWN), rng.integers(0, room + 1), replace=False).tolist() for _ in images]
    wanted = by_loops(logits_of(spec, images), labels, OWN, policy)
    assert wanted["missing_images"] > 3
    assert 0 < wanted["accuracy"] < wanted["top5"] < 1
    assert wanted["images"] < 59
    for size in (7, 16, 1000):
        found = found_in(spec, matching, in_batches(images, labels, size, room))
        got = metrics("sub", matching, policy == "wrong", {"split": found})
        assert got.pop("sub/classes") == 7
        assert got.pop("sub/missing_classes") == 2
        assert got == pytest.approx({f"sub/{key}": value for key, value in wanted.items()}, abs=1e-12)


def test_a_subset_of_fewer_than_five_classes():
    spec, own = spec_of(), [HEAD[1], HEAD[4]]
    images = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)
    labels = [[i % 2] for i in range(11)]
    matching = match(HEAD, own)
    found = found_in(spec, matching, in_batches(images, labels, 4, 1))
    got = metrics("sub", matching, True, {"split": found})
    assert got["sub/top5"] == 1.0
    assert got["sub/accuracy"] == pytest.approx(by_loops(logits_of(spec, images), labels, own, "wrong")["accuracy"])


def test_labels_beyond_the_ids():
    matching = match(HEAD, OWN)
    columns = {"counts": [True, False], "missing": [False, False], "accuracy": [1.0, 0.0], "top5": [1.0, 0.0]}
    batch = {key: np.array(value) for key, value in columns.items()} | {"largest": np.array([len(OWN), 99])}
    with pytest.raises(
        UserError, match=r"the label 9, but only 9 ids of the set's classes are known: .*config.evals.sub.set_ids"
    ):
        metrics("sub", matching, True, {"split": [batch]})


def test_the_real_lists_lack_one_class():
    head, own = i21k_classes(), imagenet_classes()
    matching = match(head, own)
    assert (len(head), len(own), len(matching.columns)) == (21_843, 1000, 999)
    assert matching.missing == ["n04399382"]
    for place in (0, 281, 998):
        assert head[matching.columns[place]] == own[np.flatnonzero(matching.numbers == place)[0]]
    assert np.flatnonzero(matching.numbers < 0).tolist() == [own.index("n04399382")]


def file_of(folder, text, name="ids.txt"):
    (folder / name).write_text(text)
    return str(folder / name)


def test_files_of_ids(tmp_path):
    file = file_of(tmp_path, "# made by hand\n\nn01440764\n  n01443537 \t# goldfish\r\n\nn00000007")
    assert read_ids(file, "config.x") == ["n01440764", "n01443537", "n00000007"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n1\nn2\nn1\n", r"config\.x='.*ids.txt': n1 comes more than once"),
        ("n1\n\nn2 tench\n", r"config\.x='.*ids.txt', line 3: 'n2 tench' is not a WordNet id"),
        ("0\n", r"line 1: '0' is not a WordNet id"),
        (None, r"config\.x='.*ids.txt' cannot be read: No such file"),
    ],
)
def test_files_that_are_no_lists_of_ids(tmp_path, text, message):
    file = str(tmp_path / "ids.txt") if text is None else file_of(tmp_path, text)
    with pytest.raises(UserError, match=message):
        read_ids(file, "config.x")


def test_a_file_must_have_an_id_for_each_class(tmp_path):
    file, spec = file_of(tmp_path, "n1\nn2\n"), spec_of()
    with pytest.raises(UserError, match=r"config\.x\.head_ids='.*' has 2 ids, but config\.model\.num_classes=13"):
        head_ids(spec, LabelSubsetSpec(head_ids=file), "config.x")
    with pytest.raises(UserError, match=r"config\.x\.set_ids='.*' has 2 ids, but data set memory/1.0.0 has 3 classes"):
        set_ids(Named(["a", "b", "c"]), LabelSubsetSpec(set_ids=file), "config.x")
    assert set_ids(Named(None), LabelSubsetSpec(set_ids=file), "config.x") == ["n1", "n2"]


def test_label_names_that_are_no_ids():
    assert ids_of(Named(OWN), "config.x.set_ids") == OWN
    for names, known in ((None, "have no names"), (["0", "1", "2", "3"], r"are called 0, 1, 2 \.\.\.")):
        with pytest.raises(UserError, match=rf"config\.x\.set_ids is missing: the classes of data set memory/1\.0\.0 {known}"):
            ids_of(Named(names), "config.x.set_ids")
    with pytest.raises(UserError, match=r"the label names of data set memory/1\.0\.0: n1 comes more than once"):
        ids_of(Named(["n1", "n1"]), "config.x.set_ids")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """`head` with the classes of HEAD, `own` with those of OWN and 23 images, `plain` without names."""
    import tensorflow_datasets as tfds

    root, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)

    def write(name, label, split, labels):
        features = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": label}
        pixels = rng.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
        examples = [{"image": encode(one), "label": own} for one, own in zip(pixels, labels, strict=True)]
        write_set(root, name, features, {split: examples})
        return pixels

    write("head", tfds.features.ClassLabel(names=HEAD), "train", [0, 1, 2])
    write("plain", tfds.features.ClassLabel(num_classes=9), "validation", [0, 1, 2])
    labels = [i * 5 % 9 for i in range(23)]
    return root, write("own", tfds.features.ClassLabel(names=OWN), "validation", labels), labels


def run(spec, devices):
    evaluator = EVALUATORS["label_subset"](spec, "sub", spec.evals["sub"])
    program = Program.__new__(Program)
    program.mesh, program._rules = make_mesh(MeshSpec(), jax.devices()[:devices]), spec.rules
    program._compiled = {evaluator.program: jax.jit(evaluator.compute, out_shardings=replicated(program.mesh))}
    params = jax.device_put(params_of(), replicated(program.mesh))
    workers = Workers(0, 2)
    try:
        return evaluate(evaluator, [(params, program.knobs(knobs_of(spec)))], program, spec.data, workers, lambda: "")[0]
    finally:
        workers.close()


@pytest.mark.parametrize("policy", ["wrong", "ignore"])
def test_a_prepared_set_in_batches_of_any_size_on_any_devices(data_dir, policy):
    root, images, labels = data_dir
    data = {"name": "own", "split": "validation", "data_dir": str(root)}
    spec = spec_of(data=data, missing=policy)
    wanted = by_loops(logits_of(spec, images), [[label] for label in labels], OWN, policy)
    assert 0 < wanted["accuracy"] < 1
    assert wanted["missing_images"] == 5
    wanted |= {"classes": 7, "missing_classes": 2}
    for batch_images, devices in ((16, 1), (7, 1), (1000, 1), (16, 8)):
        found = run(spec_of(batch_images, data=data, missing=policy), devices)
        assert found == pytest.approx({f"sub/{key}": value for key, value in wanted.items()}, abs=1e-12)


def test_a_note_says_which_classes_are_missing(data_dir):
    data = {"name": "own", "split": "validation", "data_dir": str(data_dir[0])}
    for policy, meaning in (("wrong", "count as wrong"), ("ignore", "are left out")):
        spec = spec_of(data=data, missing=policy)
        (note,) = label_subset(spec, "sub", spec.evals["sub"]).notes
        assert "config.evals.sub: the head lacks 2 of the 9 classes of data set own/1.0.0: n77777777, n66666666;" in note
        assert meaning in note
    spec = spec_of(data={**data, "name": "head", "split": "train"})
    assert not label_subset(spec, "sub", spec.evals["sub"]).notes


def test_ids_from_files_go_before_the_names(data_dir, tmp_path):
    data = {"name": "plain", "split": "validation", "data_dir": str(data_dir[0])}
    spec = spec_of(data=data)
    with pytest.raises(UserError, match=r"config\.evals\.sub\.set_ids is missing: .* plain/1\.0\.0 are called 0, 1, 2 "):
        label_subset(spec, "sub", spec.evals["sub"])
    head, own = file_of(tmp_path, "\n".join(reversed(HEAD)), "head.txt"), file_of(tmp_path, "\n".join(OWN), "own.txt")
    spec = spec_of(data=data, set_ids=own)
    reversed_spec = spec_of(data=data, set_ids=own, head_ids=head)
    plain, turned = (label_subset(one, "sub", one.evals["sub"]).compute.args[1] for one in (spec, reversed_spec))
    np.testing.assert_array_equal(plain.columns, 12 - turned.columns)
    others = file_of(tmp_path, "\n".join(f"n9{number}" for number in range(9)), "others.txt")
    spec = spec_of(data=data, set_ids=others)
    with pytest.raises(UserError, match=r"config\.evals\.sub: no class of data set plain/1\.0\.0 is a class of the head"):
        label_subset(spec, "sub", spec.evals["sub"])


def test_evaluators_share_a_program_only_if_their_classes_are_the_same(data_dir, tmp_path):
    data = {"name": "own", "split": "validation", "data_dir": str(data_dir[0])}
    turned = file_of(tmp_path, "\n".join(reversed(HEAD)))
    specs = [spec_of(data=data), spec_of(data=data, missing="ignore"), spec_of(data=data, head_ids=turned)]
    specs.append(spec_of(data={**data, "max_labels": 2}))
    names = [label_subset(spec, "sub", spec.evals["sub"]).program for spec in specs]
    assert names[0] == names[1]
    assert len(set(names)) == 3
