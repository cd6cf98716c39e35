"""Errors that are the user's to mend: one line that names the key, the value and the way out, never a traceback."""

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in a flag, a config, a data set or a directory. Command-line programs print it and exit with code 2.

    `details` are lines that go below it, where one line cannot say it.
    """

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class RunError(Exception):
    """What ended a run from outside, as a full disk. Command-line programs print it, one line, and exit with code 1."""


def unknown(what: str, got: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not among `choices`: it lists them and guesses which one was meant."""
    names = list(choices)
    near = get_close_matches(got, names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"{what} {got!r} is unknown{guess} (choices: {', '.join(names)})")


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def exit_code_of(program: Callable[[], int]) -> int:
    """Runs a command-line program; a UserError becomes one line on stderr and exit code 2, a RunError 1, Ctrl-C 130."""
    try:
        return program()
    except (UserError, RunError) as error:
        return tell(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130


def tell(error: UserError | RunError) -> int:
    """Prints it. Returns the exit code."""
    lines = [f"error: {one_line(error)}", *getattr(error, "details", ())]
    print("\n  ".join(lines), file=sys.stderr, flush=True)
    return 2 if isinstance(error, UserError) else 1
