"""Reading configs strictly, and the line between static settings and knobs."""

import dataclasses
import json

import pytest

from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.errors import UserError
from vit_attn.spec.load import literal, load_run, override, split_overrides
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import Knobs, RunSpec, flat, knobs_of, static_of
from vit_attn.spec.variants import parse_variant


def leaves(cls, prefix=""):
    for field in dataclasses.fields(cls):
        value = getattr(cls, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        elif field.name != "evals":  # empty: sections under names of one's own
            yield f"{prefix}{field.name}", field


def test_resolving_twice_changes_nothing():
    spec = load_run("configs/quickstart.py:h=gelu", {})
    assert resolve(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec


def test_every_knob_field_reaches_the_step_and_nothing_else():
    marked = {name for name, field in leaves(RunSpec()) if field.metadata.get("knob")}
    assert {name.split(".")[-1] for name in marked} == {*Knobs._fields, *Numbers._fields} - {"attention"}
    spec = resolve(
        {"seed": 3, "model": {"attention": {"h": "relu", "alpha": 0.3}}, "train": {"peak_lr": 7.0, "weight_decay": 5.0}}
    )
    assert knobs_of(spec) == Knobs(Numbers(alpha=0.3), peak_lr=7.0, weight_decay=5.0, seed=3)


def test_specs_that_differ_in_knobs_share_a_program():
    one = load_run("configs/quickstart.py:h=relu,alpha=0", {})
    other = load_run("configs/quickstart.py:h=relu,alpha=2,seed=9", {"train.peak_lr": 1.0, "train.weight_decay": 0})
    assert static_of(one) == static_of(other) != static_of(load_run("configs/quickstart.py:h=relu2", {}))
    assert hash(static_of(one)) == hash(static_of(other))
    assert static_of(load_run("configs/quickstart.py:h=relu", {"data.seed": 1})) != static_of(one)


def test_every_default_is_within_its_own_bounds():
    assert resolve({}) == resolve(dataclasses.asdict(resolve({})))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("7", 7),
        ("true", True),
        ("False", False),
        ("none", None),
        ("relu", "relu"),
        ("'7'", "7"),
        ("S/16", "S/16"),
    ],
)
def test_literal(text, value):
    assert literal(text) == value
    assert type(literal(text)) is type(value)


def test_overrides_in_both_spellings():
    rest, found = split_overrides(["--config", "x.py", "--config.a.b=1", "--config.c", "d", "--workdir", "w"])
    assert rest == ["--config", "x.py", "--workdir", "w"]
    assert found == {"a.b": 1, "c": "d"}


def test_override_makes_sections():
    values = {"a": 1}
    override(values, "b.c.d", 2)
    assert values == {"a": 1, "b": {"c": {"d": 2}}}
    with pytest.raises(UserError, match=r"config\.a=1 is a value, not a section"):
        override(values, "a.x", 2)


def test_alpha_defaults_to_one_for_a_pointwise_h():
    assert resolve({"model": {"attention": {"h": "relu"}}}).model.attention.alpha == 1.0
    assert resolve({}).model.attention.alpha is None


def test_variant_sizes_can_be_overridden_one_by_one():
    model = resolve({"model": {"variant": "S/32", "depth": 5}}).model
    assert (model.width, model.depth, model.heads, model.patch) == (384, 5, 6, 32)


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [("Ti/16", (192, 12, 768, 3)), ("S/8", (384, 12, 1536, 6)), ("B/32", (768, 12, 3072, 12)), ("L/16", (1024, 24, 4096, 16))],
)
def test_published_sizes(variant, sizes):
    assert parse_variant(variant) == (sizes, int(variant.split("/")[1]))


def test_flat_names():
    assert flat(RunSpec())["model.attention.h"] == "softmax"
    assert len(flat(RunSpec())) == len(list(leaves(RunSpec())))


@pytest.mark.parametrize("key", ["qk_norm", "gate", "alpha_learned"])
def test_none_is_a_choice_where_it_is_one(key):
    """--config.model.attention.gate=none is read as None."""
    config = "configs/quickstart.py:h=relu"
    spec = load_run(config, {f"model.attention.{key}": literal("none")})
    assert getattr(spec.model.attention, key) == "none"


EVALS = {
    "real": {"type": "classification", "data": {"name": "imagenet2012_real", "max_labels": 16}, "steps": 7},
    "few": {"type": "fewshot", "l2": [0.5, 2], "shots": [10]},
}


def test_evaluators_come_back_from_a_file_as_they_were():
    spec = resolve({"evals": EVALS})
    assert spec.evals["few"].l2 == (0.5, 2.0)
    assert spec.evals["real"].data.max_labels == 16
    assert resolve(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    assert flat(spec)["evals.real.data.name"] == "imagenet2012_real"


def test_an_evaluator_goes_with_none():
    """--config.evals.real=none"""
    values = {"evals": dict(EVALS)}
    override(values, "evals.real", literal("none"))
    assert list(resolve(values).evals) == ["few"]


@pytest.mark.parametrize(
    ("evals", "words"),
    [
        ({"x": {"type": "fewshots"}}, "config.evals.x.type: the evaluator 'fewshots' is unknown; did you mean 'fewshot'"),
        ({"x": {}}, "config.evals.x.type is missing (choices: classification, "),
        ({"x": {"type": "fewshot", "shot": 1}}, "config.evals.x.shot: the key 'shot' is unknown; did you mean 'shots'"),
        ({"x": {"type": "fewshot", "shots": 3}}, "config.evals.x.shots=3 is of type int, but a list is needed"),
        ({"x": {"type": "fewshot", "l2": ["a"]}}, "config.evals.x.l2[0]='a' is of type str, but float is needed"),
        ({"x": 3}, "config.evals.x=3 must be a section with the keys type"),
        ({"val": {"type": "classification"}}, "'val' is the name of config.eval"),
        ({"train": {"type": "classification"}}, "config.evals.train: metrics will begin with this name"),
        ({"a/b": {"type": "classification"}}, "config.evals.a/b: metrics will begin with this name"),
    ],
)
def test_bad_evaluators(evals, words):
    with pytest.raises(UserError) as caught:
        resolve({"evals": evals})
    assert words in str(caught.value)


def test_steps_follow_from_epochs():
    train = {"epochs": 2.5, "epoch_images": 1001, "batch_images": 64}
    assert resolve({"train": train}).train.steps == 39  # 39.1
    assert resolve({"train": train | {"batch_images": 16}}).train.steps == 156
    assert resolve({"train": train | {"steps": 39}}).train.steps == 39
    assert resolve({}).train.steps == 10_000
    assert resolve({"train": train | {"epochs": None, "steps": 7}}).train.steps == 7


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"epochs": 2.5}, "config.train.epochs=2.5 needs config.train.epoch_images"),
        ({"epochs": 1, "epoch_images": 3, "batch_images": 64}, "are not one batch of 64"),
        (
            {"epochs": 1, "epoch_images": 640, "batch_images": 64, "steps": 9},
            "contradict each other: set config.train.epochs=none",
        ),
        ({"epochs": 1, "epoch_images": 640, "batch_images": 64, "warmup_steps": 10}, "must be less than config.train.steps=10"),
    ],
)
def test_steps_that_cannot_be(train, words):
    with pytest.raises(UserError) as caught:
        resolve({"train": train})
    assert words in str(caught.value)
