"""What became of a pack's jobs, through kills and full disks, and what is shown of it."""

import dataclasses
import json
import time

import pytest
from sweep_runs import MEMBERS

from launch.grid import load_grid
from launch.journal import Journal, interruptions, newest
from launch.progress import Watch, seconds_left_now
from launch.submissions import Submission, Submissions
from launch.sweep_dir import SweepDir
from vit_attn.store.run_dir import RunDir


def test_a_line_that_was_cut_short_hides_no_other(tmp_path):
    journal = Journal(tmp_path / "jobs/p.jsonl")
    journal.write("start", "a", host="h")
    with open(journal.file, "a") as handle:
        handle.write('{"event": "end", "subm')  # killed here
    journal.write("start", "a", host="h")
    journal.write("end", "a", code=0, asked=False)
    assert [record["event"] for record in journal.read()] == ["start", "start", "end"]
    assert newest(journal.read(), "a")["code"] == 0
    assert newest(journal.read(), "b") is None


def test_a_full_disk_does_not_end_a_worker(tmp_path, capsys):
    (tmp_path / "jobs").write_text("no folder can be here")
    Journal(tmp_path / "jobs/p.jsonl").write("end", "a", code=3)
    assert '"code": 3' in capsys.readouterr().out


START, SAVED, ASKED = (
    {"event": "start"},
    {"event": "end", "code": 3, "asked": False},
    {"event": "end", "code": 3, "asked": True},
)
BROKEN = {"event": "end", "code": 1, "asked": False}


@pytest.mark.parametrize(
    ("records", "count"),
    [
        ([], 0),
        ([START], 0),
        ([START, SAVED], 0),  # nobody has come back yet
        ([START, SAVED, START], 1),
        ([START, START, SAVED, START], 2),  # the first one's node has vanished
        ([START, ASKED, START], 0),
        ([START, BROKEN, START], 0),
    ],
)
def test_interruptions(records, count):
    assert interruptions(records) == count


@pytest.fixture
def sweep(sweeps):
    made = SweepDir(sweeps.workdir)
    made.create(load_grid(str(sweeps.config()), {}))
    return made


def states(sweep):
    return {member.name: member.state for member in Watch(sweep.path).look()}


def test_members_of_a_cluster_are_shown_as_its_files_say(sweep):
    """From queued to done, with no clock in between but that of the files."""
    run, journal = RunDir(sweep.path / MEMBERS[0]), sweep.journal("softmax_p7")
    assert states(sweep)[MEMBERS[0]] == "waiting"
    submissions = Submissions(sweep.path)
    made = submissions.new("slurm", ["softmax_p7"])
    name = made.name
    assert states(sweep)[MEMBERS[0]] == "submitting"
    submissions.write(dataclasses.replace(made, ids={"softmax_p7": "1_0"}))
    assert states(sweep)[MEMBERS[0]] == "queued"
    assert states(sweep)[MEMBERS[1]] == "waiting"
    journal.write("start", name, host="elsewhere")
    assert states(sweep)[MEMBERS[0]] == "starting"
    run.write_status("running", step=3, steps=250, seconds_left=494.0)
    assert states(sweep)[MEMBERS[0]] == "running"
    journal.write("end", name, code=1, asked=False)
    assert states(sweep)[MEMBERS[0]] == "interrupted"
    time.sleep(0.01)
    again = submissions.new("slurm", ["softmax_p7"])
    assert again.name != name
    assert states(sweep)[MEMBERS[0]] == "submitting"
    submissions.delete(again)
    assert states(sweep)[MEMBERS[0]] == "interrupted"
    run.write_status("done", step=250, steps=250)
    assert states(sweep)[MEMBERS[0]] == "done"


def test_time_left_from_one_look(sweep):
    RunDir(sweep.path / MEMBERS[0]).write_status("running", step=50, steps=250, seconds_left=100.0)  # 2 steps a second
    members = Watch(sweep.path).look()
    assert sum(member.steps_left for member in members) == 200 + 4 * 250
    assert seconds_left_now(members) == pytest.approx(1200 / 2)


def test_names_of_submissions_are_taken_by_every_cluster(tmp_path):
    folder = tmp_path / "Größe_und.Länge of a very long directory's name"
    folder.mkdir()
    submissions = Submissions(folder)
    names = [submissions.new("gke", ["p"]).name for _ in range(3)]
    assert len(set(names)) == 3
    for name in names:
        assert len(name) <= 40
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert json.loads((folder / f"submissions/{names[0]}.json").read_text())["ids"] is None
    submissions.write(Submission(names[2], "gke", ("p",), {"p": "7"}, time.time() + 1))
    assert submissions.newest_of_packs()["p"].ids == {"p": "7"}
