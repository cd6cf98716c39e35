"""Kubernetes with JobSet (jobset.x-k8s.io/v1alpha2), as on GKE: a JobSet a pack, all of a submission in one `kubectl apply`.

The sweep's directory lies on a volume that the launcher's machine has mounted too, at the same path. A pod that is evicted, or
whose worker saved and ended with code 3, restarts the JobSet as often as need be; one that failed does not.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.backends.cluster import Cluster, State
from launch.backends.job import BusyError, Task
from launch.backends.program import call, need
from launch.submissions import Submission
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec

BUSY = (
    "connection|timed? ?out|timeout|TLS handshake|refused|no such host|i/o|unavailable|too many requests|quota|etcdserver|"
    "try again|internal error"
)
LABEL = "vit-attn/submission"
SAVED = [3, 128 + 15]  # exit codes of a worker that was asked to end: what it had is saved
PORT = 61440


@dataclass(frozen=True)
class GkeOptions:
    """`image`: with this package and its requirements. `claim`: a PersistentVolumeClaim, written by many, mounted at `mount`.

    `hosts` pods train a pack together. `accelerator` and `topology`, as in the labels of GKE's nodes, with `chips` a pod: TPU;
    without a topology: GPU. `save_s`: seconds that a pod has to save.
    """

    image: str
    claim: str
    mount: str
    accelerator: str = ""
    topology: str = ""
    chips: int = 0
    hosts: int = 1
    namespace: str = "default"
    service_account: str = ""
    spot: bool = False
    queue: str = ""
    save_s: int = 120


class Gke(Cluster):
    kind = "gke"
    programs = ("kubectl",)
    sees_files = False
    look_seconds = 15.0

    def __init__(self, sweep: SweepDir, max_parallel: int | None, options: GkeOptions) -> None:
        """Raises UserError where kubectl is missing, the pods would not see the sweep, or a limit is asked for."""
        if not sweep.path.absolute().is_relative_to(options.mount):
            raise UserError(f"--workdir={sweep.path} must be below mount={options.mount}, where the pods see it too")
        if max_parallel is not None:
            raise UserError("--max-parallel is not for gke: a quota is the cluster's (queue=NAME puts packs into Kueue's)")
        if options.hosts < 1:
            raise UserError("--backend=gke: hosts=0 must be at least 1")
        super().__init__(sweep)
        self.options = options

    def check(self, runs: Mapping[Path, RunSpec]) -> None:
        need(*self.programs)

    def dry_run(self, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
        submission = self.submissions.next(self.kind, [task.pack for task in tasks])
        say(json.dumps(self._list(submission, _names(submission)), indent=1))

    def send(self, submission: Submission, tasks: Sequence[Task]) -> dict[str, str]:
        names = _names(submission)
        call(self._kubectl("apply", "-f", "-"), BUSY, json.dumps(self._list(submission, names)))
        return names

    def find(self, submission: Submission) -> dict[str, str]:
        """To apply the same names again changes nothing; so what got lost is simply those that are there."""
        there = self._jobsets(f"{LABEL}={submission.name}")
        return {pack: name for pack, name in _names(submission).items() if name in there}

    def listed(self) -> dict[str, State]:
        states = {name: item.get("status", {}).get("terminalState") for name, item in self._jobsets(LABEL).items()}
        return {name: State.OVER if ended else State.HERE for name, ended in states.items()}

    def cancel(self, job: str) -> None:
        """The pods get SIGTERM, and `save_s` seconds."""
        call(self._kubectl("delete", "jobset", job, "--wait=false", "--ignore-not-found"), BUSY)

    def _jobsets(self, selector: str) -> dict[str, Any]:
        try:
            found = json.loads(call(self._kubectl("get", "jobsets", f"--selector={selector}", "--output=json"), BUSY))
        except (UserError, ValueError) as error:
            raise BusyError(str(error)) from error
        return {item["metadata"]["name"]: item for item in found["items"]}

    def _kubectl(self, *words: str) -> list[str]:
        return ["kubectl", f"--namespace={self.options.namespace}", *words]

    def _list(self, submission: Submission, names: dict[str, str]) -> dict[str, Any]:
        items = [self._jobset(name, pack, submission) for pack, name in names.items()]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def _jobset(self, name: str, pack: str, submission: Submission) -> dict[str, Any]:
        labels = {LABEL: submission.name}
        if self.options.queue:
            labels["kueue.x-k8s.io/queue-name"] = self.options.queue
        rule = {
            "name": "saved",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
        failed = {"name": "failed", "action": "FailJobSet"}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": name, "namespace": self.options.namespace, "labels": labels},
            "spec": {
                "failurePolicy": {"maxRestarts": 0, "rules": [rule, failed]},
                "network": {"enableDNSHostnames": True, "subdomain": name},
                "ttlSecondsAfterFinished": 86400,
                "replicatedJobs": [{"name": "w", "replicas": 1, "template": {"spec": self._job(name, pack, submission)}}],
            },
        }

    def _job(self, name: str, pack: str, submission: Submission) -> dict[str, Any]:
        hosts = self.options.hosts
        evicted = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        saved = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": SAVED}}
        return {
            "completions": hosts,
            "parallelism": hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [evicted, saved]},
            "template": {"spec": self._pod(name, pack, submission)},
        }

    def _pod(self, name: str, pack: str, submission: Submission) -> dict[str, Any]:
        options, tpu = self.options, bool(self.options.topology)
        kind = "cloud.google.com/gke-tpu-accelerator" if tpu else "cloud.google.com/gke-accelerator"
        selector = {kind: options.accelerator} if options.accelerator else {}
        selector |= {"cloud.google.com/gke-tpu-topology": options.topology} if tpu else {}
        selector |= {"cloud.google.com/gke-spot": "true"} if options.spot else {}
        chips = {"google.com/tpu" if tpu else "nvidia.com/gpu": str(options.chips)} if options.chips else {}
        path = str(self.sweep.path.absolute())
        container = {
            "name": "worker",
            "image": options.image,
            "command": ["python", "-m", "launch.worker", path, pack, "--submission", submission.name],
            "env": [{"name": key, "value": value} for key, value in self._meeting(name, tpu).items()],
            "volumeMounts": [{"name": "sweeps", "mountPath": str(Path(options.mount))}],
            "resources": {"limits": chips, "requests": chips},
        }
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": options.save_s,
            **({"serviceAccountName": options.service_account} if options.service_account else {}),
            **({"nodeSelector": selector} if selector else {}),
            "containers": [container],
            "volumes": [{"name": "sweeps", "persistentVolumeClaim": {"claimName": options.claim}}],
        }

    def _meeting(self, name: str, tpu: bool) -> dict[str, str]:
        """Where several pods without TPUs meet: JobSet gives the first of them a name. TPUs say it themselves."""
        if self.options.hosts == 1 or tpu:
            return {}
        return {"VIT_ATTN_HOSTS": str(self.options.hosts), "VIT_ATTN_COORDINATOR": f"{name}-w-0-0.{name}:{PORT}"}


def _names(submission: Submission) -> dict[str, str]:
    """Of each pack's JobSet. The pods' names, 9 letters longer, must stay below 64."""
    return {pack: f"{submission.name}-{index}" for index, pack in enumerate(submission.packs)}
