"""Reads that fail: tried again for a while where that may help, and told apart from damaged files."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

from vit_attn.data.decode import BadImageError
from vit_attn.spec.errors import UserError

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
# Errors of tensorflow, by name: whoever meets one has tensorflow loaded, but this module must not load it.
PASSING = {
    "AbortedError",
    "CancelledError",
    "DeadlineExceededError",
    "FailedPreconditionError",  # among others, a host name that cannot be resolved
    "InternalError",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownError",
}
# array_record raises RuntimeError for everything: it names the system call that failed, or the object in a bucket.
FAILED_CALL = re.compile(r"\b[a-z]+\(\) failed: (?!Is a directory)|reading gs://")


class UnreachableError(UserError):
    """A file that could not be read, though it was tried for long."""


def is_missing(error: Exception) -> bool:
    """Whether a file or directory is not there, in the words of Python or of tensorflow."""
    return isinstance(error, FileNotFoundError) or type(error).__name__ == "NotFoundError"


def may_pass(error: Exception) -> bool:
    """Whether a read that raised `error` may succeed later: an unreachable file, not a damaged one."""
    if isinstance(error, IsADirectoryError | NotADirectoryError | BadImageError):
        return False
    if isinstance(error, OSError):
        return True
    if type(error).__module__.startswith("tensorflow"):
        return type(error).__name__ in PASSING
    return type(error) is RuntimeError and FAILED_CALL.search(str(error)) is not None


def persistent(read: Callable[[], T], file: str, timeout_seconds: float) -> T:
    """What `read` returns, tried again after 0.1, 0.2, 0.4 ... 10 s while its errors may pass.

    Raises UnreachableError, naming `file`, after `timeout_seconds`; BadImageError for errors of a damaged file, at once; and
    lets UserError and BadImageError through.
    """
    end, pause = time.monotonic() + timeout_seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            return read()
        except (UserError, BadImageError):
            raise
        except Exception as error:
            if not may_pass(error):
                raise BadImageError(f"{file!r} is damaged: {_reason(error)}") from error
            left = end - time.monotonic()
            if left <= 0:
                raise UnreachableError(
                    f"{file!r} could not be read for {timeout_seconds:g} s (config.data.timeout_seconds): {_reason(error)}"
                ) from error
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {' '.join(reason.split())}"
