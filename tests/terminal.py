"""A terminal for tests: a process on a real pseudo-terminal, and what a person in front of it would see."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

from trainer_runs import ROOT

PIECE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def run_on_terminal(argv, columns=80, lines=40, during=None):
    """(exit code, everything it wrote) of `vit_attn.main`, for which the terminal is stdin, stdout and stderr.

    `during(process, written)` is called with all that was written so far, whenever there is more.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0", "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        env.pop(name, None)
    command = [sys.executable, "-m", "vit_attn.main", *map(str, argv)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lambda: _own(theirs)
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # the last one has closed it
            break
        if not more:
            break
        written += more
        if during:
            during(process, written.decode(errors="replace"))
    os.close(ours)
    return process.wait(timeout=100), written.decode()


def _own(terminal):
    """A session of its own with this terminal in charge of it, as a shell window's."""
    os.setsid()
    ioctl(terminal, termios.TIOCSCTTY, 0)


def screen(written, columns=80):
    """The lines that are there in the end, scrolled ones included: cursor up, erase a line, return and newline obeyed."""
    lines, row, column = [""], 0, 0
    for codes, letter, control, text in PIECE.findall(written):
        if control == "\r":
            column = 0
        elif control == "\n":
            row, column = row + 1, column
            lines += [""] * (row + 1 - len(lines))
        elif text:
            for character in text:
                if column == columns:
                    row, column = row + 1, 0
                    lines += [""] * (row + 1 - len(lines))
                lines[row] = lines[row].ljust(column)[:column] + character + lines[row][column + 1 :]
                column += 1
        elif letter == "A":
            row = max(row - int(codes or 1), 0)
        elif letter == "K":
            lines[row] = "" if codes == "2" else lines[row][:column]
    return [line.rstrip() for line in lines]
