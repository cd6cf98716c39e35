#!/usr/bin/env python3
"""A kubectl whose cluster is a folder, $FAKE_CLUSTER: JobSets are files there, and their pods are processes of this machine.

NAME.json: the JobSet, with its status      NAME.pids: its pods      calls: one JSON list a call
say_VERB: the number of calls that are yet to fail, and in what words      lose_VERB: of those whose answer only is lost
Restarts are those that the manifest's own policies ask for.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CLUSTER = Path(os.environ["FAKE_CLUSTER"])
TESTS = Path(__file__).resolve().parent


def main(words):
    with open(CLUSTER / "calls", "a") as calls:
        calls.write(json.dumps(words) + "\n")
    verb = words[1]
    fail_if_asked(f"say_{verb}")
    {"apply": apply, "get": get, "delete": delete}[verb](words)
    fail_if_asked(f"lose_{verb}")


def fail_if_asked(name):
    asked = CLUSTER / name
    if asked.exists():
        left, text = json.loads(asked.read_text())
        if left:
            asked.write_text(json.dumps([left - 1, text]))
            sys.exit(text)


def apply(_words):
    for item in json.load(sys.stdin)["items"]:
        file = CLUSTER / f"{item['metadata']['name']}.json"
        if not file.exists():
            file.write_text(json.dumps(item))
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.Popen([sys.executable, __file__, "controller", str(file)], start_new_session=True, **quiet)


def get(words):
    key, _, value = next(word for word in words if word.startswith("--selector=")).removeprefix("--selector=").partition("=")
    items = [json.loads(file.read_text()) for file in sorted(CLUSTER.glob("*.json"))]
    labels = [item["metadata"]["labels"] for item in items]
    items = [item for item, label in zip(items, labels, strict=True) if key in label and value in ("", label[key])]
    items = [item for item in items if f"--namespace={item['metadata']['namespace']}" == words[0]]
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def delete(words):
    file = CLUSTER / f"{words[3]}.json"
    file.unlink(missing_ok=True)
    for pid in json.loads(file.with_suffix(".pids").read_text()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def controller(file):
    """What the controllers of Jobs and JobSets do with one."""
    jobset = json.loads(file.read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    saved = next(rule["onExitCodes"]["values"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule)
    while file.exists():
        codes = pods(file, job)
        if file.exists() and not (set(codes) - {0} and set(codes) <= {0, *saved}):
            jobset["status"] = {"terminalState": "Failed" if any(codes) else "Completed"}
            file.write_text(json.dumps(jobset))
            return


def pods(file, job):
    container = job["template"]["spec"]["containers"][0]
    command = container["command"]
    assert command[:3] == ["python", "-m", "launch.worker"]
    env = {**os.environ, **{one["name"]: one["value"] for one in container["env"]}}
    running = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "drive_worker.py"), *command[3:]], env={**env, "JOB_COMPLETION_INDEX": str(index)}
        )
        for index in range(job["completions"])
    ]
    file.with_suffix(".pids").write_text(json.dumps([pod.pid for pod in running]))
    codes = [pod.wait() for pod in running]
    time.sleep(0.1)
    return [128 - code if code < 0 else code for code in codes]


if __name__ == "__main__":
    sys.exit(controller(Path(sys.argv[2])) if sys.argv[1] == "controller" else main(sys.argv[1:]))
