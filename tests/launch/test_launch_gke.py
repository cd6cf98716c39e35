"""JobSets: the manifests against the published schemas, and sweeps on a kubectl whose pods are processes of this machine."""

import json
import os
import signal

import jsonschema
import kubernetes_validate
import pytest
from on_kubernetes import TWO, on_kubernetes
from sweep_runs import MEMBERS, ROOT, wait_until

from launch.journal import Journal
from vit_attn.store.run_dir import RunDir

SCHEMA = json.loads((ROOT / "tests/launch/jobset_schema.json").read_text())
KUBERNETES = "1.33"


@pytest.fixture
def sweeps(tmp_path):
    with on_kubernetes(tmp_path) as made:
        yield made


def manifests(sweeps, more=""):
    code, out, err = sweeps.run(*sweeps.backend(more), "--dry-run", config=sweeps.config(TWO))
    assert code == 0, err
    return json.loads(out[out.index("\n{") :])["items"]


TPU = ",accelerator=tpu-v5-lite-podslice,topology=4x4,chips=4,hosts=4,spot=true,namespace=vit,queue=team"
GPU = ",accelerator=nvidia-h100-80gb,chips=8,hosts=2,service_account=trainer"


@pytest.mark.parametrize("more", ["", TPU, GPU], ids=["plain", "tpu", "gpu"])
def test_a_manifest_is_what_the_published_schemas_ask_for(sweeps, more):
    items = manifests(sweeps, more)
    assert len(items) == 2
    for item in items:
        jsonschema.validate(item, SCHEMA)
        (job,) = item["spec"]["replicatedJobs"]
        as_job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": job["template"]["spec"]}
        kubernetes_validate.validate(as_job, KUBERNETES, strict=True)
    assert not (sweeps.cluster / "calls").exists()


def test_what_a_manifest_asks_for(sweeps):
    job = manifests(sweeps, TPU)[0]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["completions"], job["parallelism"], job["completionMode"], job["backoffLimit"]) == (4, 4, "Indexed", 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}
    assert container["command"][:5] == ["python", "-m", "launch.worker", str(sweeps.workdir), "softmax_p7"]
    container = manifests(sweeps, GPU)[1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    env = {one["name"]: one["value"] for one in container["env"]}
    name = container["command"][-1] + "-1"
    assert env == {"VIT_ATTN_HOSTS": "2", "VIT_ATTN_COORDINATOR": f"{name}-w-0-0.{name}:61440"}


def test_an_evicted_pod_comes_back(sweeps):
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.2"
    launcher = sweeps.begin()
    wait_until(lambda: RunDir(sweeps.workdir / MEMBERS[0]).status().step > 3, 30)
    os.kill(sweeps.pods("softmax_p7")[0], signal.SIGTERM)
    sweeps.finish(process=launcher)
    sweeps.assert_each_step_once()
    assert [record["code"] for record in Journal(sweeps.workdir / "jobs/softmax_p7.jsonl").read() if "code" in record] == [3, 0]
    assert len(sweeps.calls("apply")) == 1


def test_a_pack_that_fails_is_tried_once_more(sweeps):
    sweeps.environment |= {"STAND_IN_FAILING": MEMBERS[0], "STAND_IN_FAILURES": "9"}
    out = sweeps.finish(code=1)
    assert "pack softmax_p7 failed: exit code 1: RuntimeError: [no luck] at start 2" in out
    assert sweeps.starts().count(MEMBERS[:1]) == 2


def test_a_killed_launcher_finds_its_jobs_again(sweeps):
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.7"
    launcher = sweeps.begin()
    wait_until(lambda: len(sweeps.starts()) == 2, 120)
    launcher.kill()
    launcher.wait()
    for file in sweeps.workdir.glob("submissions/*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "ids": None}))
    assert sweeps.finish().count("at work already") == 2
    sweeps.assert_each_step_once()
    assert len(sweeps.calls("apply")) == 1


def at_work(sweeps):
    """A launcher whose two packs train, slowly."""
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.5"
    launcher = sweeps.begin()
    wait_until(lambda: len(sweeps.starts()) == 2, 120)
    return launcher


def test_a_stopped_sweep_leaves_no_jobs(sweeps):
    launcher = at_work(sweeps)
    launcher.terminate()
    sweeps.finish(process=launcher, code=3)
    assert set(sweeps.states().values()) == {"stopped"}
    assert not list(sweeps.cluster.glob("*.json"))
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.01"
    sweeps.finish()
    sweeps.assert_each_step_once()


def test_a_cluster_that_does_not_take_the_stop_is_told_and_workers_see_it_all_the_same(sweeps):
    launcher = at_work(sweeps)
    launcher.kill()
    launcher.wait()
    sweeps.say("delete", 9, "Unable to connect to the server: dial tcp: i/o timeout")
    asked = sweeps.launch("stop")
    assert (asked.returncode, len(asked.stderr.splitlines())) == (1, 1)
    assert f"i/o timeout; workers that see {sweeps.workdir / 'stop'} save and end all the same" in asked.stderr
    (sweeps.cluster / "say_delete").unlink()
    assert sweeps.launch("stop").returncode == 0
    assert set(sweeps.states().values()) == {"stopped"}


def test_a_launcher_ends_in_order_where_the_stop_is_not_taken(sweeps):
    launcher = at_work(sweeps)
    sweeps.say("delete", 9, "Unable to connect to the server: dial tcp: i/o timeout")
    launcher.terminate()
    out = sweeps.finish(process=launcher, code=3)
    assert "could not be asked to end (kubectl: Unable to connect" in out
    assert set(sweeps.states().values()) == {"stopped"}
    (sweeps.cluster / "say_delete").unlink()
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.01"
    sweeps.finish()
    sweeps.assert_each_step_once()


def test_a_sweep_finishes_over_a_network_that_fails_and_repeats_nothing(sweeps):
    sweeps.say("apply", 1, "Unable to connect to the server: dial tcp: i/o timeout")
    sweeps.say("get", 2, "Unable to connect to the server: net/http: TLS handshake timeout")
    out = sweeps.finish()
    assert "no pack was started (kubectl: Unable to connect to the server" in out
    assert "pack relu_p7: finished" in out
    sweeps.assert_each_step_once()
    assert sweeps.finish()
    assert len(sweeps.calls("apply")) == 2


def test_a_cluster_without_jobset_is_one_line(sweeps):
    sweeps.say(
        "apply", 9, 'error: resource mapping not found: no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"'
    )
    err = sweeps.finish(code=2)
    assert 'no matches for kind "JobSet"' in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("gke:claim=c,mount=/", "image is missing"),
        ("gke:image=i,claim=c,mount=/elsewhere", "must be below mount=/elsewhere"),
        ("gke:image=i,claim=c,mount=/,hosts=0", "hosts=0 must be at least 1"),
    ],
)
def test_bad_input_is_one_line(sweeps, backend, told):
    code, _, err = sweeps.run("--backend", backend)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1
    assert not sweeps.workdir.exists()
