#!/usr/bin/env python3
"""A gcloud that keeps everything in a folder, $FAKE_CLOUD, runs the startup scripts it is given, and misbehaves on request.

calls             one JSON list a call                buckets/NAME/...   what lies in gs://NAME
vms/NAME.json     a queued resource                   vms/NAME/          its machine: /opt/vit_attn, startup.log
say_KIND          a file with the number of calls of this kind that are yet to fail, and in what words
lose_KIND         the same for calls that do what they are asked for, and whose answer is lost
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CLOUD = Path(os.environ["FAKE_CLOUD"])
TESTS = Path(__file__).resolve().parent


def main(words):
    with open(CLOUD / "calls", "a") as calls:
        calls.write(json.dumps(words) + "\n")
    kind = words[1] if words[0] == "storage" else words[3]
    fail_if_asked(kind, "say")
    flags = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    names = [word for word in words if not word.startswith("-")]
    {"create": create, "list": listed, "delete": delete, "rsync": rsync, "cp": copy, "rm": remove}[kind](names, flags)
    fail_if_asked(kind, "lose")


def fail_if_asked(kind, how):
    file = CLOUD / f"{how}_{kind}"
    if file.exists():
        left, text = json.loads(file.read_text())
        if left:
            file.write_text(json.dumps([left - 1, text]))
            sys.exit(f"ERROR: (gcloud.compute.tpus.queued-resources.{kind}) {text}")


def create(names, flags):
    name, file = names[4], CLOUD / "vms" / f"{names[4]}.json"
    if file.exists():
        sys.exit(f"ERROR: ALREADY_EXISTS: Resource '{name}' already exists")
    source = flags["metadata-from-file"].removeprefix("startup-script=")
    here = CLOUD / "vms" / name
    (here / ".venv/bin").mkdir(parents=True)
    (here / "startup.sh").write_text(Path(source).read_text())
    python = here / ".venv/bin/python"  # runs launch.worker out of the VM's own code, with the stand-in worker underneath
    lines = ["#!/bin/bash", '[ "$2" = launch.worker ] || exit 9', "shift 2"]
    lines.append(f'PYTHONPATH={here} exec {sys.executable} {TESTS}/drive_worker.py "$@"')
    python.write_text("\n".join(lines))
    python.chmod(0o755)
    process = subprocess.Popen(
        ["bash", here / "startup.sh"],
        env={**os.environ, "VIT_ATTN_HERE": str(here), "VIT_ATTN_EVERY": "1"},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    resource = {"name": f"projects/p/locations/{flags['zone']}/queuedResources/{name}", "state": {"state": "ACTIVE"}}
    file.write_text(json.dumps({**resource, "pid": process.pid}))


def listed(_names, _flags):
    print(json.dumps([json.loads(file.read_text()) for file in sorted((CLOUD / "vms").glob("*.json"))]))


def delete(names, _flags):
    file = CLOUD / "vms" / f"{names[4]}.json"
    if not file.exists():
        sys.exit("ERROR: NOT_FOUND: Requested entity was not found")
    file.unlink()


def place(text):
    return CLOUD / "buckets" / text.removeprefix("gs://") if text.startswith("gs://") else Path(text)


def rsync(names, flags):
    """Files whose content differs; like the real one, it wants a source that is there."""
    source, target = (place(name) for name in names[2:])
    if not source.is_dir():
        sys.exit(f"ERROR: Source {source} is not a directory")
    for file in source.rglob("*"):
        relative = file.relative_to(source)
        if file.is_file() and not ("exclude" in flags and re.search(flags["exclude"], str(relative))):
            put(file, target / relative)


def copy(names, flags):
    source, target = (place(name) for name in names[2:])
    if not source.is_file():
        sys.exit("ERROR: The following URLs matched no objects or files")
    if not ("no-clobber" in flags and target.exists()):
        put(source, target)


def put(source, target):
    """Whole or not at all, as an object in a bucket."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, part)
    part.replace(target)


def remove(names, _flags):
    place(names[2]).unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
