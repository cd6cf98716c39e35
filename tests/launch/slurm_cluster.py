"""A real Slurm of two nodes on this machine, in a temporary directory: munged, slurmctld and two slurmd on free ports."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from trainer_runs import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
NODES = ("127.0.0.2", "127.0.0.3")  # their names too, so that whoever looks one up finds it
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=30
NodeName={nodes[0]} NodeHostname={host} NodeAddr={nodes[0]} Port={node_ports[0]} CPUs=2
NodeName={nodes[1]} NodeHostname={host} NodeAddr={nodes[1]} Port={node_ports[1]} CPUs=2
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why no Slurm can be started here; "" if one can."""
    gone = [program for program in PROGRAMS if shutil.which(program) is None]
    if gone:
        return f"no {', '.join(gone)} here (on Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "only root may start slurmd"


@dataclass
class Slurm:
    """`environment` is what programs need to find it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = {"socket": "munge.sock", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        flags = [f"--{flag}={self.folder / name}" for flag, name in files.items()]
        subprocess.run(["munged", "--force", f"--key-file={key}", *flags], check=True, capture_output=True)
        ports = [free_port() for _ in range(3)]
        host = os.uname().nodename.partition(".")[0]
        config = CONFIG.format(folder=self.folder, host=host, nodes=NODES, control_port=ports[0], node_ports=ports[1:])
        (self.folder / "slurm.conf").write_text(config)
        self.run("slurmctld")
        for node in NODES:
            self.start_node(node)
        self.wait_for(lambda: self.run("sinfo", "--noheader", "--format=%T %D").strip().splitlines()[:1] == ["idle 2"])

    def start_node(self, node: str) -> None:
        self.run("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """SIGKILL to its daemon; what runs there goes on."""
        os.kill(int((self.folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)

    def stop(self) -> None:
        self.run("scancel", "--quiet", "--user=root", "--signal=KILL", "--full", check=False)
        self.run("scancel", "--quiet", "--user=root", check=False)
        deadline = time.monotonic() + 10
        while self.states() and time.monotonic() < deadline and "RUNNING" in str(self.states()):
            time.sleep(0.2)
        files = [*self.folder.glob("slurm*.pid"), self.folder / "munge.pid"]
        daemons = [int(file.read_text()) for file in files if file.exists()]
        for daemon in daemons:
            os.kill(daemon, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{daemon}").exists() for daemon in daemons) and time.monotonic() < deadline:
            time.sleep(0.1)

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """{"7_0": "RUNNING"} of all jobs, those that have ended too."""
        rows = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(row.split() for row in rows)

    def wait_for(self, true, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            logs = (self.folder / "slurmctld.log").read_text()[-1500:]
            assert time.monotonic() < deadline, f"it did not come true in time: {self.states()}\n{logs}"
            time.sleep(0.1)
