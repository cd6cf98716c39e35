"""Why a worker ended, in one line: its exit code or signal, and the last words in its log."""

import re
import signal
from pathlib import Path

ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Exit|Interrupt)\b|error: ")
TAIL_BYTES, LONGEST = 64_000, 300
STOPPED_CODES = (3, -signal.SIGTERM)  # somebody asked a worker to end: it saved what there was, or there was nothing yet


def reason(code: int, log: Path, start: int) -> str:
    """ "exit code 1: ValueError: ..." from the part of `log` behind byte `start`."""
    words = last_words(log, start)
    return f"{_ended(code)}: {words}" if words else f"{_ended(code)}, and it printed nothing (log: {log})"


def last_words(log: Path, start: int) -> str:
    """The last line that opens with the name of an exception, as a traceback's last; without one, the last line at all."""
    lines = [line for line in _lines(log, start) if not line.startswith("$ ")]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines or [""])[-1][:LONGEST]


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log; nothing where there is none."""
    return [line[:LONGEST] for line in _lines(log, 0)[-count:]]


def _lines(log: Path, start: int) -> list[str]:
    """Those that are not empty, from byte `start` on, of as much of the end as is worth reading."""
    if not log.exists():
        return []
    with open(log, "rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(start, size - TAIL_BYTES))
        text = handle.read().decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    known = {int(number): number.name for number in signal.Signals}
    return f"killed by {known.get(-code, f'signal {-code}')}"
