"""What goes between a worker and its decoder process: frames of JSON with bytes behind them.

What comes back from a process that has read hostile files is never unpickled, and is held to
what was asked for.
"""

import json
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmcore.sample import Dropped, Made, Outcome, Part, PartRef, Quarantined, Sample

_HEAD = struct.Struct("<IQ")
"""The length of the JSON, and of the bytes behind it."""
_MAX_JSON_BYTES = 256 * 2**20
_MAX_DATA_BYTES = 4 * 2**30
_BUFFER_BYTES = 2**20
_MAX_PIECES = 1024  # at once, for the kernel


class ChannelClosed(Exception):
    """The other side is gone."""


def channel() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a connection within this machine."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ours, theirs


def send(end: socket.socket, header: Any, data: Sequence[bytes] = ()) -> None:
    """Send a frame; ChannelClosed when nobody will read it."""
    text = json.dumps(header, separators=(",", ":")).encode()
    head = _HEAD.pack(len(text), sum(map(len, data)))
    try:
        _send_all(end, [head, text, *data])
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ChannelClosed from error


def _send_all(end: socket.socket, pieces: Sequence[bytes]) -> None:
    """Send pieces behind each other, as they lie in memory."""
    for first in range(0, len(pieces), _MAX_PIECES):
        left = [memoryview(piece) for piece in pieces[first : first + _MAX_PIECES] if piece]
        while left:
            num_sent = end.sendmsg(left)
            while left and num_sent >= len(left[0]):
                num_sent -= len(left.pop(0))
            if num_sent:
                left[0] = left[0][num_sent:]


def receive(end: socket.socket, tick: Callable[[], None]) -> tuple[Any, memoryview]:
    """Return a frame; `tick` is called whenever the socket's timeout passes without a byte."""
    num_json, num_data = _HEAD.unpack(_exactly(end, _HEAD.size, tick))
    if num_json > _MAX_JSON_BYTES or num_data > _MAX_DATA_BYTES:
        raise ChannelClosed("a frame that no healthy process sends")
    text = _exactly(end, num_json, tick)
    try:
        header = json.loads(bytes(text))
    except ValueError as error:
        raise ChannelClosed("a frame that no healthy process sends") from error
    return header, _exactly(end, num_data, tick)


def pack_samples(samples: Iterable[Sample]) -> tuple[list[Any], list[bytes]]:
    """Return samples as JSON, and the bytes of those of their parts that are in memory alone."""
    items: list[Any] = []
    data: list[bytes] = []
    for sample in samples:
        parts = [_packed(extension, part, data) for extension, part in sample.parts.items()]
        items.append((sample.key, parts, sample.meta, sample.scores, _notes(sample)))
    return items, data


def unpack_samples(items: Sequence[Any], data: memoryview) -> list[Sample]:
    """Return the samples that were packed."""
    at = _Reader(data)
    return [
        Sample(
            key,
            {extension: at.part_with(where, made) for extension, where, made in parts},
            meta,
            scores,
            _scratch(notes),
        )
        for key, parts, meta, scores, notes in items
    ]


def pack(before: Sample, rule: str, outcome: Outcome, data: list[bytes]) -> tuple[Any, ...]:
    """Return an outcome as JSON, appending the bytes of those of its parts that are new.

    What is still as it was `before` is not sent: the worker has it.
    """
    said: tuple[str, ...]
    if isinstance(outcome, Sample):
        sample, said = outcome, (_KEPT,)
    elif isinstance(outcome, Dropped):
        sample, said = outcome.sample, (_DROPPED, outcome.reason, outcome.detail, outcome.twin)
    else:
        sample, said = outcome.sample, (_QUARANTINED, outcome.reason, outcome.detail)
    parts: list[Any] = []
    for extension, part in sample.parts.items():
        old = before.parts.get(extension)
        is_same = old is not None and part.ref is old.ref and part.ref is not None
        if is_same and old is not None and part.made is old.made:
            parts.append((extension, None, _SAME))
        elif is_same:
            parts.append((extension, None, _packed_made(part.made, data)))
        else:
            parts.append(_packed(extension, part, data))
    meta = None if sample.meta is before.meta else dict(sample.meta)
    scores: dict[str, float] | None = None
    if sample.scores is not before.scores:
        scores = {name: float(score) for name, score in sample.scores.items()}
    return (sample.key, rule, said, parts, meta, scores, _notes(sample))


def unpack(before: Sample, item: Any, data: memoryview) -> tuple[str, Outcome, int]:
    """Return (rule, outcome, how many of the bytes were its own)."""
    key, rule, said, listed, meta, scores, notes = item
    at = _Reader(data)
    parts: dict[str, Part] = {}
    for extension, where, made in listed:
        if where is not None:
            parts[extension] = at.part_with(where, made)
        else:
            old = before.parts[extension]
            parts[extension] = Part(old.ref, None, old.made if made == _SAME else at.made(made))
    sample = Sample(
        key,
        parts,
        before.meta if meta is None else meta,
        before.scores if scores is None else scores,
        _scratch(notes),
    )
    kind, *words = said
    if kind == _KEPT:
        return rule, sample, at.at
    return rule, (Dropped if kind == _DROPPED else Quarantined)(sample, *words), at.at


_KEPT, _DROPPED, _QUARANTINED = "k", "d", "q"
_SAME = "="
"""What was made ahead of a part is what was made of it before."""


def _notes(sample: Sample) -> dict[str, Any]:
    """Return what of the scratch is about no part: what stages tell those after them."""
    return {what: value for (extension, what), value in sample.scratch.items() if not extension}


def _scratch(notes: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {("", what): value for what, value in notes.items()}


def _packed(extension: str, part: Part, data: list[bytes]) -> tuple[str, Any, Any]:
    return extension, _where(part, data), _packed_made(part.made, data)


def _where(part: Part, data: list[bytes]) -> Any:
    ref = part.ref
    if ref is not None:
        return ref.base, ref.path, ref.offset, ref.num_bytes, ref.sha256
    assert part.data is not None, "a part has bytes or a reference"
    data.append(part.data)
    return len(part.data)


def _packed_made(made: Made | None, data: list[bytes]) -> Any:
    if made is None:
        return None
    where = None if made.part is None else _where(made.part, data)
    return made.by, made.of, made.extension, where


class _Reader:
    """Takes the bytes of parts one after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.at = 0

    def part(self, where: Any) -> Part:
        if not isinstance(where, int):
            return Part(ref=PartRef(*where))
        first, self.at = self.at, self.at + where
        return Part(data=bytes(self._data[first : self.at]))

    def made(self, said: Any) -> Made | None:
        if said is None:
            return None
        by, of, extension, where = said
        return Made(by, of, extension, None if where is None else self.part(where))

    def part_with(self, where: Any, made: Any) -> Part:
        part = self.part(where)
        return part if made is None else Part(part.ref, part.data, self.made(made))


def _exactly(end: socket.socket, num_bytes: int, tick: Callable[[], None]) -> memoryview:
    buffer = memoryview(bytearray(num_bytes))
    at = 0
    while at < num_bytes:
        try:
            found = end.recv_into(buffer[at:])
        except TimeoutError:
            tick()
            continue
        except ConnectionResetError as error:
            raise ChannelClosed from error
        if not found:
            raise ChannelClosed
        at += found
    return buffer
