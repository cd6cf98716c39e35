"""Command-line flags whose mistakes are a UserError, one line, like every other mistake of the user's."""

import argparse
from typing import Any, NoReturn

from vit_attn.spec.errors import UserError


class Flags(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations, shows a module's docstring as it stands, and raises UserError."""

    def __init__(self, program: str, description: str | None) -> None:
        keep: Any = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=f"python -m {program}", description=description, formatter_class=keep, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")
