"""A disk that takes no more: one line that says which file, how much is free and how much is needed, instead of what broke."""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vit_attn.spec.errors import RunError, UserError
from vit_attn.store.run_dir import RunDir

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # those that only writing meets
TEXTS = {number: os.strerror(number) for number in NUMBERS}  # what remains of an error that came through C++


@contextmanager
def disk_named(run_dirs: Iterable[RunDir]) -> Iterator[None]:
    """Turns whatever a full or read-only disk led to into a RunError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if found := _cause(error):
            raise RunError(_line(*found, next(iter(run_dirs)))) from error
        raise


def _cause(error: BaseException | None) -> tuple[int, str] | None:
    """(error number, file or "") of the first in the chain of errors that a disk is to blame for."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NUMBERS:
            return error.errno, str(error.filename or "")
        for number, text in TEXTS.items():
            if text in str(error):
                path = re.search(r"(?:^|[\s\"'])(/[^\s\"';:]+)", str(error))
                return number, path[1] if path else ""
        error = error.__cause__ or error.__context__
    return None


def _line(number: int, file: str, run_dir: RunDir) -> str:
    saved = {int(entry.name): entry for entry in run_dir.checkpoints.glob("*") if entry.name.isdecimal()}
    words = [f"{file or run_dir.path} could not be written: {TEXTS[number].lower()}"]
    if number in (errno.ENOSPC, errno.EDQUOT):
        free = f"{shutil.disk_usage(run_dir.path).free / 2**20:.1f} MiB are free on its disk"
        one = max((_size(entry) for entry in saved.values()), default=0) / 2**20
        words.append(f"{free}, a checkpoint takes {one:.1f} MiB" if saved else free)
    words.append(f"the last checkpoint is step {max(saved)}" if saved else "there is no checkpoint yet")
    words.append("make room, and the same command goes on")
    return "; ".join(words)


def _size(folder: os.PathLike[str]) -> int:
    return sum(os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names)  # noqa: PTH118
