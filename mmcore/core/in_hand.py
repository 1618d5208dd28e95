"""Which record is in hand where bytes from outside are read.

What reads them says so before it looks at a record. Then the record has a time of its own, and if
it ends the process, it is known by its place and number: the next process refuses it and goes on
behind it. This is of the process, as its timer and its limits are; where nobody watches, as in a
test, everything may be read.
"""

from dataclasses import dataclass
from typing import Protocol

WHOLE = -1
"""The number of what tells of all records of a place: a header, a footer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record is not looked at."""

    reason: str
    detail: str
    is_last: bool = False
    """Whether nothing behind it is read either."""


class Watching(Protocol):
    """Is told what is in hand."""

    def begin(self, place: str, number: int) -> Refusal | None: ...

    def passed(self, num_bytes: int) -> None: ...


class _Nobody:
    def begin(self, place: str, number: int) -> Refusal | None:
        return None

    def passed(self, num_bytes: int) -> None:
        pass


_watching: Watching = _Nobody()


def watch(watching: Watching | None) -> None:
    """Tell somebody from now on; None: nobody."""
    global _watching
    _watching = _Nobody() if watching is None else watching


def begin(place: str, number: int) -> Refusal | None:
    """Say that a record of a place is looked at next; return why not, if it must not be."""
    return _watching.begin(place, number)


def passed(num_bytes: int) -> None:
    """Say that so many more bytes belong to the record in hand, which may take longer for it."""
    _watching.passed(num_bytes)
