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


def run_on_terminal(argv, columns=80, lines=40, typed=None):
    """(exit code, everything it wrote) of `vit_attn.main`, for which the terminal is stdin, stdout and stderr.

    `typed`: {what it writes: the keys that are pressed as soon as that is there}, in this order; None in place of keys: the
    terminal is gone.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "TERM": "xterm-256color", "TERMINAL": os.ttyname(theirs)}
    env = {**os.environ, **flags}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        env.pop(name, None)
    # The first process of a session that opens a terminal owns it, as a shell does its window's: Ctrl-C and hang-ups reach it.
    command = ["sh", "-c", 'exec "$@" <"$TERMINAL" >"$TERMINAL" 2>&1', "sh", sys.executable, "-m", "vit_attn.main"]
    process = subprocess.Popen([*command, *map(str, argv)], cwd=ROOT, env=env, start_new_session=True)
    written, waiting = b"", list((typed or {}).items())
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # the last one has closed it
            break
        if not more:
            break
        written += more
        if theirs is not None:  # the process has its own by now
            theirs = os.close(theirs)
        if waiting and waiting[0][0].encode() in written:
            keys = waiting.pop(0)[1]
            if keys is None:
                break
            os.write(ours, keys)
    os.close(ours)
    return process.wait(timeout=100), written.decode(errors="replace")


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
