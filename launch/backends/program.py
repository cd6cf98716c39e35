"""Programs of a cluster, such as sbatch and gcloud: called, and their refusals sorted."""

import re
import shutil
import subprocess
from collections.abc import Sequence

from launch.backends.job import BusyError
from vit_attn.spec.errors import UserError

SECONDS = 120.0
SLURM = "Slurm's client (on Debian: slurm-client)"
PACKAGES = {
    **{"sbatch": SLURM, "squeue": SLURM, "scancel": SLURM},
    "gcloud": "the Google Cloud CLI (https://cloud.google.com/sdk/docs/install)",
    "kubectl": "kubectl (https://kubernetes.io/docs/tasks/tools)",
}


class MissingError(UserError):
    """A program that is not on the PATH; it names the package to install."""

    def __init__(self, program: str) -> None:
        what = f"there is no program {program!r} here"
        super().__init__(f"{what}: install {PACKAGES.get(program, program)}, or launch from a machine that has it")


def need(*programs: str) -> None:
    """Raises MissingError unless all are on the PATH."""
    for program in programs:
        if shutil.which(program) is None:
            raise MissingError(program)


def call(command: Sequence[str], busy: str, stdin: str | None = None) -> str:
    """What it prints. Raises BusyError if it was refused with words that match `busy`, or hangs; UserError for all else."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError as error:
        raise MissingError(command[0]) from error
    except subprocess.TimeoutExpired as error:
        raise BusyError(f"{command[0]} has not answered for {SECONDS:.0f} seconds") from error
    if done.returncode:
        raise refusal(command[0], done.stderr or done.stdout, busy)
    return done.stdout


def refusal(program: str, words: str, busy: str) -> BusyError | UserError:
    """The words, in one line: as what will pass, or as what the user has to mend."""
    text = f"{program}: {' '.join(words.split())[-300:]}"
    return BusyError(text) if re.search(busy, words, re.IGNORECASE) else UserError(text)
