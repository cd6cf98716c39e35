"""A run's directory: whose it is, and how it is emptied."""

import json
from dataclasses import asdict

import pytest

from vit_attn.spec.errors import UserError
from vit_attn.spec.resolve import resolve
from vit_attn.store.place import Place, place_of
from vit_attn.store.run_dir import RunDir, differences

SPEC = resolve({"train": {"steps": 7}})


def test_a_setting_that_was_not_there_yet_had_its_default():
    old = asdict(SPEC)
    del old["train"]["spike_sigmas"], old["rules"], old["mesh"]["fsdp"]
    assert differences(old, asdict(SPEC)) == []
    del old["train"]["steps"]  # whose default is another number
    assert differences(old, asdict(SPEC)) == ["config.train.steps: 0 there, 7 here"]


def test_half_emptied_is_not_complete(tmp_path, monkeypatch):
    """A kill while --overwrite deletes: the run may not be taken for one that is done."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.create(SPEC)
    for found_out in ("quant/w8a8/results.json", "outliers/outliers.json"):
        (run_dir.path / found_out).parent.mkdir(parents=True)
        (run_dir.path / found_out).write_text("{}")
    run_dir.write_status("done", step=7, steps=7, metrics={})
    monkeypatch.setattr(Place, "clear", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_dir.clear(SPEC)
    assert run_dir.status().state == "waiting"
    monkeypatch.undo()
    run_dir.clear(SPEC)
    assert not list(run_dir.path.iterdir())


def test_checkpoints_are_set_aside_under_free_names(tmp_path):
    place = place_of(tmp_path, SPEC.loop)
    for taken in ("12.1", "12.2", "11.0"):
        (place.refused / taken).mkdir(parents=True)
    for _ in range(2):
        place.path(12).mkdir(parents=True)
        place.set_aside(12)
    assert {folder.name for folder in place.refused.iterdir()} == {"11.0", "12.0", "12.1", "12.2", "12.3"}


@pytest.mark.parametrize("values", [{"init_from": ""}, {"loop": {"ckpt_dir": " "}}])
def test_a_directory_without_a_name(values):
    with pytest.raises(UserError, match=r"config\.(init_from|loop\.ckpt_dir)='.*' names no directory"):
        resolve(values)


def test_what_a_file_says_is_what_was_written(tmp_path):
    RunDir(tmp_path).create(SPEC)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 7
    assert RunDir(tmp_path).spec() == SPEC
