"""What one launcher leaves to the next: jobs at work, lost answers, refusals, and a directory made anew."""

import shutil
import socket

import pytest
from on_kubernetes import TWO, on_kubernetes
from sweep_runs import MEMBERS, wait_until

from launch.grid import load_grid
from launch.place import Place, last_place
from launch.submissions import Submissions
from launch.sweep_dir import SweepDir
from vit_attn.store.run_dir import RunDir

SLOW = {"STAND_IN_STEP_SECONDS": "0.4"}  # 16 steps: 6 s
TIMEOUT = "Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded while awaiting headers)"


@pytest.fixture
def sweeps(tmp_path):
    with on_kubernetes(tmp_path) as made:
        yield made


def kill_launcher(sweeps):
    """While both its jobs are at work, for a minute."""
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "4"
    launcher = sweeps.begin()
    wait_until(lambda: len(sweeps.starts()) == 2, 60)
    launcher.kill()
    launcher.wait()


def refused(sweeps, *flags):
    """The one line on stderr of a launcher that ends with code 2."""
    process = sweeps.start(*flags, config=sweeps.config(TWO))
    err = sweeps.finish(process=process, code=2)
    assert len(err.splitlines()) == 1
    return err


def told(launcher, words):
    """The next line with these words."""
    return next(line for line in iter(launcher.stdout.readline, "") if words in line)


def test_a_lost_answer_is_looked_for_and_not_asked_for_again(sweeps):
    sweeps.environment |= SLOW
    sweeps.lose("apply", 1, TIMEOUT)
    out = sweeps.finish()
    assert "no pack was started (kubectl: Unable to connect" in out
    assert out.count("at work already") == 2
    assert len(sweeps.starts()) == len(sweeps.jobsets()) == 2
    sweeps.assert_each_step_once()


def test_what_a_refusal_let_through_is_found_again(sweeps):
    sweeps.environment |= SLOW
    sweeps.lose("apply", 1, "error: admission webhook denied one of them")
    assert "webhook denied" in sweeps.finish(code=2)
    assert sweeps.finish().count("at work already") == 2
    sweeps.assert_each_step_once()


def test_jobs_at_work_are_not_fought_over(sweeps):
    kill_launcher(sweeps)
    assert "jobs are at work in packs relu_p7 of --backend gke:" in refused(sweeps, *sweeps.backend(), "--pack", "1")
    for flags in ((), sweeps.backend(",namespace=other")):
        err = refused(sweeps, *flags)
        assert "jobs are at work in packs relu_p7, softmax_p7 of --backend gke:" in err
        assert f"python -m launch.stop {sweeps.workdir}" in err
    again = sweeps.start(*sweeps.backend(",save_s=60"), config=sweeps.config(TWO))  # another pod, the same jobs
    assert all("at work already" in line for line in (told(again, "p7: "), told(again, "p7: ")))


def test_retry_elsewhere_fights_over_nothing(sweeps):
    sweeps.environment |= {"STAND_IN_FAILING": MEMBERS[0], "STAND_IN_FAILURES": "1"}
    kill_launcher(sweeps)
    RunDir(sweeps.workdir / MEMBERS[0]).write_status("failed", steps=16, message="no luck")
    done = sweeps.launch("retry", "--failed", "--backend", "local", program="drive_retry.py")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "jobs are at work in packs relu_p7 of" in done.stderr


def test_a_member_that_another_process_trains_is_not_marked_as_failed(sweeps):
    sweeps.environment |= {"STAND_IN_FAILING": MEMBERS[0], "STAND_IN_FAILURES": "9"}
    (sweeps.workdir / MEMBERS[0]).mkdir(parents=True)
    with RunDir(sweeps.workdir / MEMBERS[0]).locked():
        sweeps.finish(process=sweeps.start(config=sweeps.config(TWO)), code=1)
    assert sweeps.states()[MEMBERS[0]] == "waiting"


def test_a_refusal_leaves_nothing_behind(sweeps):
    sweeps.environment |= {"STAND_IN_FAILING": MEMBERS[0], "STAND_IN_FAILURES": "2"}
    sweeps.finish(process=sweeps.start(config=sweeps.config(TWO)), code=1)
    sweep = SweepDir(sweeps.workdir)
    before = last_place(sweep)
    assert before.name == "local"
    sweeps.say("apply", 2, "error: the server doesn't have a resource type")
    refused(sweeps, *sweeps.backend())
    done = sweeps.launch("retry", "--failed", "--backend", sweeps.backend()[1], program="drive_retry.py")
    assert (done.returncode, "resource type" in done.stderr) == (2, True)
    assert not Submissions(sweep.path).read()
    assert last_place(sweep) == before
    assert sweeps.states()[MEMBERS[0]] == "failed"


def test_a_cluster_that_is_silent_is_asked_with_one_submission(sweeps):
    sweeps.say("apply", 9, TIMEOUT)
    launcher = sweeps.begin()
    wait_until(lambda: len(sweeps.calls("apply")) == 2, 60)
    launcher.terminate()
    out = sweeps.finish(process=launcher, code=3)
    assert "SIGTERM: no worker is at work" in out
    assert "Stopped by SIGTERM; nothing was left at work" in out
    assert len(list(sweeps.workdir.glob("submissions/*.json"))) <= 1
    assert not sweeps.starts()


def test_a_directory_made_anew_is_another_sweep(sweeps):
    sweeps.finish()
    first = sweeps.jobsets()
    shutil.rmtree(sweeps.workdir)
    (sweeps.folder / "steps").unlink()
    sweeps.finish("--config.train.peak_lr=0.5")
    sweeps.assert_each_step_once()
    assert len(sweeps.jobsets()) == 4
    assert set(first) < set(sweeps.jobsets())


def test_an_id_stays_when_the_packs_change(sweeps):
    sweep, config = SweepDir(sweeps.workdir), str(sweeps.config())
    sweep.create(load_grid(config, {}))
    drawn, file = sweep.id, sweep.file.read_text()
    assert drawn.startswith("w-")
    sweep.create(load_grid(str(sweeps.config(TWO)), {}))
    assert sweep.file.read_text() != file
    assert sweep.id == drawn


def test_a_missing_program_is_one_line_everywhere(sweeps):
    sweeps.environment |= {"STAND_IN_FAILING": MEMBERS[0], "STAND_IN_FAILURES": "2"}
    sweeps.finish(code=1)
    files = sweeps.files()
    sweeps.environment["PATH"] = str(sweeps.folder / "empty")
    code, out, err = sweeps.run(*sweeps.backend(), "--dry-run", config=sweeps.config(TWO))
    assert (code, err) == (0, "")
    assert "a start from here would end: there is no program 'kubectl' here: install kubectl" in out
    for done in (sweeps.launch("retry", "--failed", program="drive_retry.py"), sweeps.launch("stop")):
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "there is no program 'kubectl' here" in done.stderr
    (sweeps.workdir / "stop").unlink()
    assert sweeps.files() == files


def test_stop_does_not_wait_for_members_that_nobody_trains(sweeps):
    sweep = SweepDir(sweeps.workdir)
    sweep.create(load_grid(str(sweeps.config(TWO)), {}))
    Place(sweeps.backend()[1]).write(sweep)
    run = RunDir(sweep.path / MEMBERS[0])
    run.write_status("running", step=3, steps=16)
    file = run.path / "status.json"
    file.write_text(file.read_text().replace(socket.gethostname(), "node17"))
    done = sweeps.launch("stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"no job is known, but these members call themselves running: {MEMBERS[0]}" in done.stdout
