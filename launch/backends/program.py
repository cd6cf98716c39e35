"""Programs of a cluster, such as sbatch and gcloud: called, and their refusals sorted."""

import re
import shutil
import subprocess
from collections.abc import Sequence

from launch.backends.job import BusyError
from vit_attn.spec.errors import UserError

SECONDS = 120.0


def need(program: str, package: str) -> None:
    """Raises UserError, with the package to install, unless `program` is on the PATH."""
    if shutil.which(program) is None:
        raise UserError(f"there is no program {program!r} here: install {package}, or launch from a machine that has it")


def call(command: Sequence[str], busy: str, stdin: str | None = None) -> str:
    """What it prints. Raises BusyError if it was refused with words that match `busy`, or hangs; UserError for all else."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BusyError(f"{command[0]} has not answered for {SECONDS:.0f} seconds") from error
    if done.returncode:
        raise refusal(command[0], done.stderr or done.stdout, busy)
    return done.stdout


def refusal(program: str, words: str, busy: str) -> BusyError | UserError:
    """The words, in one line: as what will pass, or as what the user has to mend."""
    text = f"{program}: {' '.join(words.split())[-600:]}"
    return BusyError(text) if re.search(busy, words, re.IGNORECASE) else UserError(text)
