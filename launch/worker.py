"""Trains one pack of a sweep on a machine of a cluster, and writes down how that went. Nobody calls it by hand.

python -m launch.worker SWEEP PACK --submission NAME

Exit codes: those of vit_attn.main; 0 also where `launch.stop` asked for the end, so that no cluster starts it again.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from launch.failure import STOPPED_CODES
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import exit_code_of, unknown
from vit_attn.spec.flags import Flags

COMMAND = ("-m", "vit_attn.main")  # of this interpreter
RANKS = ("VIT_ATTN_RANK", "SLURM_PROCID", "JOB_COMPLETION_INDEX")  # which of a pack's hosts this is
POLL_SECONDS, ASK_SECONDS = 0.1, 2.0


@dataclass
class Worker:
    """Called on each of the hosts that train a pack together; the first one keeps the journal."""

    sweep: Path
    pack: str
    submission: str
    command: Sequence[str] = COMMAND
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __call__(self) -> None:
        """Ends this process, with an exit code if it is not 0."""
        sweep, rank = SweepDir(self.sweep), _rank()
        runs = sweep.packs().get(self.pack)
        if runs is None:
            raise unknown(f"{self.sweep}: the pack", self.pack, sweep.packs())
        journal = sweep.journal(self.pack) if rank == 0 else None
        if sweep.stop_file.exists():
            if journal:
                journal.write("end", self.submission, code=3, asked=True)
            return
        if journal:
            journal.write("start", self.submission, host=socket.gethostname())
        log = sweep.log(self.pack if rank == 0 else f"{self.pack}.{rank}")
        self.process = self._start([str(run.path) for run in runs], log)
        signal.signal(signal.SIGTERM, self._pass_on)
        asked = self._wait(sweep)
        code = self.process.wait()
        if journal:
            journal.write("end", self.submission, code=code, asked=asked)
        if code and not (asked and code in STOPPED_CODES):
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> object | None:
        """submitit's question when the time limit comes near: what to put into the queue again. None if it has failed."""
        from submitit.helpers import DelayedSubmission

        if self.process is None:
            return None
        self._pass_on(signal.SIGTERM, None)
        code = _exit_code(self.process.pid)
        if _rank() == 0:
            SweepDir(self.sweep).journal(self.pack).write("end", self.submission, code=code, asked=False)
        again = Worker(self.sweep, self.pack, self.submission, self.command)
        return DelayedSubmission(again) if code in (0, *STOPPED_CODES) else None

    def _start(self, runs: list[str], log: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, *self.command, "--run", *runs, "--stop-with-parent", str(os.getpid()), *_meeting()]
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            output.write(f"$ {shlex.join(command)}\n".encode())
            output.flush()
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Slurm sends its warnings of the time limit to all processes, and these would die of it.
                preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGUSR1, signal.SIGUSR2)],
            )

    def _wait(self, sweep: SweepDir) -> bool:
        """Until the process has ended; passes on what launch.stop asks for, and returns whether it did."""
        assert self.process is not None
        asked, next_look = False, 0.0
        while self.process.poll() is None:
            if not asked and time.monotonic() >= next_look:
                next_look = time.monotonic() + ASK_SECONDS
                if asked := sweep.stop_file.exists():
                    self._pass_on(signal.SIGTERM, None)
            time.sleep(POLL_SECONDS)
        return asked

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self.process is not None and self.process.returncode is None:
            os.kill(self.process.pid, number)


def _rank() -> int:
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)


def _meeting() -> list[str]:
    """Flags for hosts whose cluster does not say by itself where they meet, as its backend has set them."""
    if "VIT_ATTN_HOSTS" not in os.environ:
        return []
    return [
        *("--processes", os.environ["VIT_ATTN_HOSTS"], "--process", str(_rank())),
        *("--coordinator", os.environ["VIT_ATTN_COORDINATOR"]),
    ]


def _exit_code(pid: int) -> int:
    """Of a child, once it has ended. In a handler of signals: Popen's own wait may be at work underneath, and holds a lock."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError where no such pack is."""
    parser = Flags("launch.worker", __doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("pack")
    parser.add_argument("--submission", required=True)
    flags = parser.parse_args(argv)
    Worker(flags.sweep, flags.pack, flags.submission)()
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
