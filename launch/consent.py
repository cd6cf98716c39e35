"""Asks before something that takes long or costs much; where nobody can answer, says no."""

import sys

from vit_attn.spec.errors import UserError


def confirm(what: str, yes: bool, instead: str = "") -> None:
    """Returns if --yes was given, or the answer on the terminal is yes. Raises UserError with `what` and the way out if not:
    --yes, or `instead`."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(f"{what}: {instead}say --yes to do it all the same")
    answer = input(f"{what}. Go on? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError(f"{what}: not confirmed, nothing was started")
