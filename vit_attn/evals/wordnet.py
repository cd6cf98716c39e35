"""WordNet ids of classes: from a file of the user's, or from the label names of a data set."""

import re
from collections import Counter
from collections.abc import Sequence

from etils import epath

from vit_attn.data.sources.source import Source
from vit_attn.spec.errors import UserError

WORDNET_ID = re.compile(r"n\d+")
COMMENT = "#"


def read_ids(file: str, where: str) -> list[str]:
    """One id a line, in the order of the labels; empty lines and what follows a # do not count.

    Raises UserError, naming the setting `where`, for a file that cannot be read, a line that is no id, and an id that comes
    twice.
    """
    try:
        lines = epath.Path(file).expanduser().read_text().splitlines()
    except Exception as error:  # of a bucket, tensorflow's own kinds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        raise UserError(f"{where}={file!r} cannot be read: {reason}") from error
    rows = [(number, line.partition(COMMENT)[0].strip()) for number, line in enumerate(lines, 1)]
    ids = [(number, row) for number, row in rows if row]
    for number, row in ids:
        if not WORDNET_ID.fullmatch(row):
            raise UserError(f"{where}={file!r}, line {number}: {row!r} is not a WordNet id, as n01440764 is")
    _check_once([row for _, row in ids], f"{where}={file!r}")
    return [row for _, row in ids]


def ids_of(source: Source, where: str) -> list[str]:
    """The label names of a data set that knows its classes by their ids. Raises UserError, naming the setting `where`."""
    names = source.label_names
    if not names or not all(WORDNET_ID.fullmatch(name) for name in names):
        known = f"are called {', '.join(names[:3])} ..." if names else "have no names"
        raise UserError(
            f"{where} is missing: the classes of data set {source.name} {known}, which are not WordNet ids; give a file with "
            "one id a line, in the order of the labels"
        )
    _check_once(names, f"the label names of data set {source.name}")
    return names


def _check_once(ids: Sequence[str], what: str) -> None:
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(
            f"{what}: {few(twice)} come{'s' if len(twice) == 1 else ''} more than once, but each class needs its own id"
        )


def few(ids: Sequence[str], most: int = 10) -> str:
    """The first ids, and how many more there are."""
    rest = len(ids) - most
    return ", ".join(ids[:most]) + (f" and {rest} more" if rest > 0 else "")
