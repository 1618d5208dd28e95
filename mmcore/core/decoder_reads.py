"""What the child does where bytes from outside hold many records: it answers questions.

An answer is two pieces of bytes, a head and a body, of which nothing is known here. Answers go to
the worker as they are found: it takes them when it wants them, and a child that is ahead waits.
"""

import hashlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from mmcore.core import decoder_wire as wire
from mmcore.core import in_hand
from mmcore.core.in_hand import Refusal
from mmcore.sample import Json

_FLUSH_ANSWERS = 64
_FLUSH_BYTES = 2**20
_TICK_BYTES = 2**20
_LONGEST_SECONDS = 2**31 // 1000
_PLACE_DIGITS = 32

Found = tuple[bytes, Sequence[bytes]]
"""The head of an answer, and the pieces of its body."""
Read = Callable[[Json], Iterator[Found]]


class Progress(Protocol):
    """Where the worker sees what is in hand."""

    number: int

    def enter(self, rule: str, record: int = 0) -> None: ...

    def tick(self) -> None: ...


def mark_of(place: str) -> str:
    """Return what stands for a place where there is little room."""
    return hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:_PLACE_DIGITS]


def answer_all(end: socket.socket, asked: Any, read: Read, progress: Progress) -> None:
    """Send the answers to some questions, in order, and say which was the last."""
    out = _Outgoing(end)
    pace = _Pace(progress, asked, out.flush)
    in_hand.watch(pace)
    for number, question in enumerate(asked["questions"], asked["first"]):
        progress.number = number
        for head, body in _answers(number, question, read, pace):
            if out.add(number, head, body):
                pace.rest()  # a worker that takes its time takes none of the record's
                out.flush()
    pace.rest()
    in_hand.watch(None)
    progress.number = -1
    progress.enter("")
    out.flush(is_last=True)


class _Outgoing:
    """Answers on their way to the worker, some at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._items: list[tuple[int, int, int]] = []
        self._data: list[bytes] = []
        self._num_bytes = 0

    def add(self, number: int, head: bytes, body: Sequence[bytes]) -> bool:
        """Take an answer; return whether there are enough to be sent."""
        num_body = sum(map(len, body))
        self._items.append((number, len(head), num_body))
        self._data += (head, *body)
        self._num_bytes += len(head) + num_body
        return len(self._items) >= _FLUSH_ANSWERS or self._num_bytes >= _FLUSH_BYTES

    def flush(self, *, is_last: bool = False) -> None:
        if self._items or is_last:
            said = {"answers": self._items, **({"is_last": True} if is_last else {})}
            wire.send(self._end, said, self._data)
        self._items, self._data, self._num_bytes = [], [], 0


def _answers(number: int, question: Json, read: Read, pace: "_Pace") -> Iterator[Found]:
    """Yield the answers to a question up to one that is refused, of which the worker knows."""
    place = question_place(number)
    found = read(question)
    num_found = 0
    while pace.begin(place, num_found) is None:
        answer = next(found, None)
        if answer is None:
            return
        yield answer
        num_found += 1
    yield REFUSED, ()


def question_place(number: int) -> str:
    """Return the place of the answers to a question, where what reads names no place of its own."""
    return f"#{number}"


REFUSED = b""
"""The head of what stands for an answer that is refused."""


class _Pace:
    """Gives every record its time, and tells the worker which one has it."""

    def __init__(
        self,
        progress: Progress,
        asked: Any,
        flush: Callable[[], None],
    ) -> None:
        self._progress = progress
        self._flush = flush
        self._seconds = min(asked["seconds"], _LONGEST_SECONDS)
        self._seconds_per_mb = asked["seconds_per_mb"]
        self._refused = {
            (mark, number): Refusal(reason, detail, is_last)
            for mark, number, reason, detail, is_last in asked["refused"]
        }
        self._marks: dict[str, str] = {}
        self._num_passed = 0

    def begin(self, place: str, number: int) -> Refusal | None:
        mark = self._marks.get(place)
        if mark is None:
            if len(self._marks) > 64:
                self._marks.clear()
            mark = self._marks[place] = mark_of(place)
        self._num_passed = 0
        self._progress.enter(mark, number)
        refusal = self._refused.get((mark, number)) if self._refused else None
        if refusal is not None:
            self.rest()
            self._flush()  # what was found before is safe, even if stepping over it is not
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        return refusal

    def passed(self, num_bytes: int) -> None:
        self._num_passed += num_bytes
        if self._num_passed >= _TICK_BYTES:
            self._progress.tick()
            more = self._seconds_per_mb * self._num_passed / 1e6
            left = signal.getitimer(signal.ITIMER_PROF)[0]
            signal.setitimer(signal.ITIMER_PROF, min(left + more, _LONGEST_SECONDS))
            self._num_passed = 0

    def rest(self) -> None:
        """Nothing is in hand but what the worker does not take."""
        signal.setitimer(signal.ITIMER_PROF, 0)
