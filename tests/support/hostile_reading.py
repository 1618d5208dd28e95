"""What reads records that kill the process in which they are read, on demand."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from hostile_stages import obey_word

from mmcore.core import in_hand
from mmcore.core.decoder_reads import Found, Read
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.layout import (
    Aside,
    ContainerLayout,
    Corpus,
    Grouping,
    Made,
    RawSample,
    ReadFile,
    group_containers,
    record_key,
)
from mmcore.sample import Json, Outcome, Part, Quarantined, Sample


@dataclass(frozen=True)
class Words:
    """Reads questions that are lists of words, and answers each word after doing what it says."""

    names_records: bool = True
    """Whether it says which record is in hand."""
    marks: str = ""
    """A directory where each process leaves a line for each word that it looks at: `WORD PID`."""

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Read]:
        return lambda _: self._read

    def _read(self, question: Any) -> Iterator[Found]:
        for number, word in enumerate(question["words"]):
            refusal = in_hand.begin(question["place"], number) if self.names_records else None
            if refusal is not None and word != "stuck":
                yield f"{refusal.reason}: {refusal.detail}".encode(), ()
                if refusal.is_last:
                    return
                continue
            if self.marks:
                with open(f"{self.marks}/looks", "a") as looks:
                    looks.write(f"{word} {os.getpid()}\n")
            obey_word("abort" if word == "stuck" else word)
            yield word.encode(), (word.encode() * 2,)


@dataclass(frozen=True, kw_only=True)
class Lines(ContainerLayout):
    """Files whose lines are words: a sample each, if its word lets it."""

    def group(self, files: Sequence[Any]) -> Grouping:
        return group_containers(files, lambda path: path.endswith(".words"), "no_words")

    def scan_identity(self) -> dict[str, Json]:
        return {"reader": "lines", "code_version": 1}

    def count(self, path: str, stream: BinaryIO) -> int | None:
        words = stream.read().decode().split()
        for number, word in enumerate(words):
            if in_hand.begin(path, number) is None and word != "once":
                obey_word(word)
        return len(words)

    def records(self, raw: RawSample, corpus: Corpus) -> Iterable[Outcome | Aside]:
        for number, word in enumerate(corpus.read(raw.files[""]).decode().split()):
            refusal = in_hand.begin(raw.original_key, number)
            sample = Sample(record_key(raw.original_key, f"{number:03d}"), meta={"n": number})
            if refusal is not None:
                yield Quarantined(sample, refusal.reason, refusal.detail)
                continue
            obey_word(word)
            yield Sample(sample.key, {"txt": Part(data=word.encode())}, sample.meta)


@dataclass(frozen=True, kw_only=True)
class Sidecars(FolderLayout):
    """A folder whose sidecars have a word that is obeyed when they are read."""

    def make(self, raw: RawSample, read_file: ReadFile) -> Made:
        if raw.problem is None:
            obey_word(json.loads(read_file(raw.files["json"])).get("word", ""))
        return super().make(raw, read_file)


def said(answers: Iterable[tuple[int, Any]]) -> list[tuple[int, str]]:
    """Return what was answered, with the number of each question."""
    return [
        (
            number,
            bytes(answer[0]).decode() if isinstance(answer, tuple) else json.dumps(answer.reason),
        )
        for number, answer in answers
    ]


def wait_for(path: str) -> str:
    """Return what a file holds as soon as it is there."""
    until = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < until, f"nobody writes {path}"
        time.sleep(0.01)
    with open(path) as file:
        return file.read()
