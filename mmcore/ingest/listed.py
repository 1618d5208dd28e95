"""URLs that a list names: found in the decoder process, and matched to what arrived of them."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from mmcore import storage
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.decoder_reads import Found, Read
from mmcore.core.in_hand import Refusal
from mmcore.core.reading import answers
from mmcore.ingest.layout import Arrived
from mmcore.sample import Json

_URLS_AHEAD = 1024


class Lists(Protocol):
    """Knows where a list has its URLs; it travels to the decoder process."""

    def urls_in(self, path: str, stream: BinaryIO) -> Iterator[list[str]]:
        """Yield the URLs of every row of a list that names some."""
        ...


def listed_urls(layout: Lists, path: str, url: str, limits: DecoderLimits) -> Iterator[str]:
    """Yield the URLs of the list at a path below a URL; rows that cannot be read name none."""
    for _, answer in answers(_Listing(layout, url), [path], limits):
        if not isinstance(answer, Refusal):
            yield from json.loads(bytes(answer[0]))


@dataclass(frozen=True)
class _Listing:
    """Reads lists below a URL, in the decoder process."""

    layout: Lists
    url: str

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Read]:
        return lambda _: self._read

    def _read(self, question: Json) -> Iterator[Found]:
        path = str(question)
        with storage.open_read(storage.join(self.url, path)) as stream:
            for urls in self.layout.urls_in(path, stream):
                yield json.dumps(urls).encode(), ()


class Arriving:
    """What became of the URLs of a list, for those of its rows that can be read now.

    When they were fetched, a row more or less may have been refused: limits were others then.
    """

    def __init__(self, arrived: Iterator[Arrived]) -> None:
        self._arrived = arrived
        self._waiting: deque[Arrived] = deque()

    def of(self, url: str) -> Arrived:
        """Return what became of the next URL of the list."""
        for number in range(_URLS_AHEAD):
            if number == len(self._waiting):
                more = next(self._arrived, None)
                if more is None:
                    break
                self._waiting.append(more)
            if self._waiting[number].url == url:
                for _ in range(number):
                    self._waiting.popleft()
                return self._waiting.popleft()
        return Arrived(url, None, "url_not_fetched", f"{url:.200}: its row was not read then")
