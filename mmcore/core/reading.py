"""Reads what strangers wrote in the decoder process: questions go over, answers come back.

A question is answered by any number of answers: what a table holds, row by row. Whatever a record
does to the process, that costs this record: it is looked at once more in a process that has read
nothing but what lies before it; then it is refused, and what lies behind it is read. Where not even
stepping over it goes well, or where too many records of one place are like it, nothing behind it is
read, and one refusal stands for that. As the records before it give the same answers every time,
what has been handed over is not handed over again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from mmcore.core.decoder import MAX_KILLED, Decoder, borrowed, killed
from mmcore.core.decoder_hand import Answer, Died
from mmcore.core.decoder_limits import TIMEOUT, DecoderLimits
from mmcore.core.decoder_reads import Read, mark_of, question_place
from mmcore.core.in_hand import Refusal
from mmcore.sample import Json

_MAX_REFUSED = 16
"""Records of one place, such as a file: for each of them it is read again from its beginning."""


class Reading(Protocol):
    """What is read, and how; it travels to the decoder process and is built there."""

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Read]:
        """Return what makes the function from a question to its answers."""
        ...


def answers(
    reading: Reading, questions: Sequence[Json], limits: DecoderLimits
) -> Iterator[tuple[int, Answer | Refusal]]:
    """Yield every answer with the number of its question, in order.

    A refusal is the last answer to its question, and stands for all that is not read.
    """
    if questions:
        with borrowed([reading]) as decoder:
            yield from _Asking(decoder, questions, limits).answers()


class _Asking:
    """Questions on their way through one decoder process after the other."""

    def __init__(self, decoder: Decoder, questions: Sequence[Json], limits: DecoderLimits) -> None:
        self._decoder = decoder
        self._questions = questions
        self._limits = limits
        self._refused: dict[tuple[str, int], Refusal] = {}
        self._num_refused: Counter[str] = Counter()
        self._num_killed: Counter[int] = Counter()
        self._first = 0
        """The question of which not all answers have been handed over, ..."""
        self._num_handed = 0
        """... and how many have."""
        self._suspect: int | None = None

    def answers(self) -> Iterator[tuple[int, Answer | Refusal]]:
        while self._first < len(self._questions):
            first, stop, suspect = self._first, len(self._questions), self._suspect
            if suspect is not None:
                # up to it as before; then it alone, in a process that has seen nothing else
                stop = first + 1 if suspect == first else suspect
            hand = self._decoder.ready(self._limits, is_new=suspect == first)
            was_untouched = hand.is_untouched
            num_known = self._num_handed
            try:
                for number, answer in hand.answers(
                    0, self._questions[first:stop], first, self._refused
                ):
                    if number == first and num_known:
                        num_known -= 1
                        continue
                    if number != self._first:
                        self._first, self._num_handed = number, 0
                    self._num_handed += 1
                    yield number, self._refusal(number) if answer is None else answer
                self._go_on(stop)
            except Died as death:
                refusal = self._after(death, first, was_untouched=was_untouched)
                if refusal is not None:
                    self._go_on(first + 1)
                    yield first, refusal
            except BaseException:
                self._decoder.let_go()
                raise

    def _after(self, death: Died, first: int, *, was_untouched: bool) -> Refusal | None:
        """Decide what to do about a death; return why there is no answer where nothing helps."""
        self._suspect = number = max(death.number, self._first)
        seconds = f"{self._limits.seconds:.4g} s"
        if self._limits.seconds_per_mb:
            seconds += f" and {self._limits.seconds_per_mb:.4g} s a megabyte"
        found = death.verdict(self._decoder.end(), seconds, self._limits)
        if found is None:
            self._num_killed[number] += 1
            if self._num_killed[number] == MAX_KILLED:
                raise killed() from None
        elif number == first and (was_untouched or found[0] == TIMEOUT):
            return self._refuse(death.rule, death.record, *found)
        return None

    def _go_on(self, first: int) -> None:
        self._first, self._num_handed = first, 0
        if self._suspect is not None and first > self._suspect:
            self._suspect = None

    def _refuse(self, mark: str, record: int, reason: str, detail: str) -> Refusal | None:
        """Refuse a record from now on; return why where that was of no use."""
        known = self._refused.get((mark, record))
        if known is not None and known.is_last:
            return known
        self._num_refused[mark] += 1
        is_last = known is not None or self._num_refused[mark] >= _MAX_REFUSED
        found = Refusal(reason, detail) if known is None else known
        if is_last:
            found = replace(
                found, detail=f"{found.detail}; nothing behind it is read", is_last=True
            )
        self._refused[(mark, record)] = found
        return None

    def _refusal(self, number: int) -> Refusal:
        """Return why there is no further answer to a question."""
        mark = mark_of(question_place(number))
        return max(
            ((record, one) for (place, record), one in self._refused.items() if place == mark),
            key=lambda found: found[0],
        )[1]
