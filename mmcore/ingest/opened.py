"""What raw samples turn out to hold when they are opened, which is done in the decoder process.

Groups of which names say it all are not sent there: nothing of them is opened here either.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from mmcore.core import decoder_wire as wire
from mmcore.core.decoder_hand import Answer
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.decoder_reads import Found, Read
from mmcore.core.in_hand import Refusal
from mmcore.core.reading import answers
from mmcore.ingest.layout import Arrived, Aside, Corpus, Layout, RawSample, SourceFile
from mmcore.sample import Json, Outcome, Sample

_NOTHING = Sample("")
"""Before it was found, nothing was known of a sample."""
_dumps = json.JSONEncoder(separators=(",", ":")).encode


def opened(
    layout: Layout, raws: Sequence[RawSample], corpus: Corpus, limits: DecoderLimits
) -> Iterator[tuple[RawSample, Outcome | Aside]]:
    """Yield what raw samples turn out to hold, in their order."""
    questions: list[Json] = [raw_to_json(raw) for raw in raws if layout.opens(raw)]
    arriving = _Arriving(answers(_Opening(layout, corpus), questions, limits))
    number = 0
    for raw in raws:
        if layout.opens(raw):
            found = arriving.found(number, layout, raw)
            number += 1
        else:
            found = layout.read(raw, _CLOSED)
        for one in layout.settled(raw, found):
            yield raw, one


def raw_to_json(raw: RawSample) -> dict[str, Json]:
    """Return a raw sample as it travels to whoever opens it."""
    files: list[Json] = [
        [role, file.path, file.num_bytes, file.sha256] for role, file in sorted(raw.files.items())
    ]
    problem: Json = None if raw.problem is None else list(raw.problem)
    return {
        "key": raw.key,
        "original_key": raw.original_key,
        "files": files,
        "problem": problem,
    }


def raw_from(value: Any) -> RawSample:
    """Return the raw sample that travelled."""
    files = {role: SourceFile(*rest) for role, *rest in value["files"]}
    problem = None if value["problem"] is None else (value["problem"][0], value["problem"][1])
    return RawSample(value["key"], value["original_key"], files, problem)


@dataclass(frozen=True)
class _Opening:
    """Opens raw samples; it travels to the decoder process."""

    layout: Layout
    corpus: Corpus

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Read]:
        return lambda _: self._read

    def _read(self, question: Json) -> Iterator[Found]:
        for found in self.layout.read(raw_from(question), self.corpus):
            data: list[bytes] = []
            if isinstance(found, Aside):
                said: Any = (found.path, found.reason)
            else:
                said = wire.pack(_NOTHING, "", found, data)
            yield _dumps(said).encode(), data


class _Arriving:
    """Answers, divided by what was asked."""

    def __init__(self, answered: Iterator[tuple[int, Answer | Refusal]]) -> None:
        self._answered = answered
        self._next: tuple[int, Answer | Refusal] | None = None

    def found(self, number: int, layout: Layout, raw: RawSample) -> Iterator[Outcome | Aside]:
        """Yield what was found in the raw sample of a question."""
        num_found = 0
        while True:
            if self._next is None:
                self._next = next(self._answered, None)
            if self._next is None or self._next[0] != number:
                return
            answer, self._next = self._next[1], None
            if isinstance(answer, Refusal):
                yield layout.refused(raw, answer.reason, answer.detail, num_found)
            else:
                yield _found(answer)
            num_found += 1


def _found(answer: Answer) -> Outcome | Aside:
    head, body = answer
    said = json.loads(bytes(head))
    if len(said) == 2:
        return Aside(*said)
    return wire.unpack(_NOTHING, said, body)[1]


class _Closed:
    """The corpus where nothing of it may be read."""

    def read(self, file: SourceFile) -> bytes:
        self._refuse(file.path)

    def stream(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        self._refuse(file.path)

    def seekable(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        self._refuse(file.path)

    def find(self, paths: Sequence[str]) -> Mapping[str, SourceFile]:
        self._refuse(paths)

    def arrived(self, path: str) -> Iterator[Arrived]:
        self._refuse(path)

    def _refuse(self, what: object) -> NoReturn:
        raise AssertionError(f"{what} is read, though names say it all")


_CLOSED = _Closed()
