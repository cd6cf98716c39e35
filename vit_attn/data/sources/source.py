"""One split of a data set, as examples that are still encoded."""

from typing import Protocol, TypedDict, runtime_checkable


class Example(TypedDict):
    image: bytes  # JPEG or PNG
    labels: list[int]  # none, one or several


@runtime_checkable
class Source(Protocol):
    """May be pickled, and used from several threads. Equal sources in several processes give equal examples and orders."""

    @property
    def name(self) -> str:
        """With the version, "cifar10/3.0.2"; or the path of the folder."""

    @property
    def split(self) -> str: ...

    @property
    def label_names(self) -> list[str] | None:
        """In the order of the labels, where the set knows them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """The example at an index of the split.

        Raises BadImageError for a damaged record, UnreachableError for a file that cannot be read for long, and UserError for
        more labels than max_labels.
        """

    def where(self, index: int) -> str:
        """How an error message names an example, with the file that holds it."""

    def identity(self, index: int) -> str:
        """The file, and the record in it, that holds an example: splits that overlap have some in common."""

    def order(self, position: int, seed: int) -> tuple[int, int]:
        """(epoch, index) of the example at a position of the endless training stream. Each epoch has every example once."""
