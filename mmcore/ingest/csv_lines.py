"""The lines of a CSV file, for whoever reads a row at a time and may be wrong about its end."""

import csv
from collections import deque
from collections.abc import Iterator


class CsvLines:
    """Lines for one row at a time, given back when they turn out to be none of it.

    A quote that is never closed would take all that follows with it; like this it costs one row.
    """

    def __init__(self, lines: Iterator[bytes], *, max_row_bytes: int) -> None:
        self._lines = lines
        self._max_row_bytes = max_row_bytes
        self._waiting: deque[bytes] = deque()
        self._taken: list[bytes] = []
        self.line = 0
        """Of the file, from 1."""

    def begin(self) -> str | None:
        """Begin with the next line that is not blank; return it, or None at the end."""
        self._taken = []
        for line in iter(self._next, None):
            self.line += 1
            if line.strip():
                self._waiting.appendleft(line)
                return line.decode("utf-8", "surrogateescape")
        return None

    def skip(self) -> None:
        """Take this row to be the one line with which it begins."""
        self._next()

    def give_back(self) -> None:
        """Take back all lines of this row but the first."""
        self._waiting.extendleft(reversed(self._taken[1:]))
        self.line -= max(len(self._taken) - 1, 0)
        self._taken = self._taken[:1]

    def __iter__(self) -> "CsvLines":
        return self

    def __next__(self) -> str:
        if sum(map(len, self._taken)) > self._max_row_bytes // 32 or len(self._taken) > 1000:
            raise csv.Error("a quote is not closed")
        line = self._next()
        if line is None:
            raise StopIteration
        if len(line) > self._max_row_bytes:
            raise csv.Error(f"more than {self._max_row_bytes} bytes")
        self._taken.append(line)
        if len(self._taken) > 1:
            self.line += 1
        text = line.decode("utf-8", "surrogateescape")
        return text.removeprefix("\ufeff") if self.line == 1 else text

    def _next(self) -> bytes | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)
