"""The one process that decodes for a worker now: asked for outcomes, watched, killed."""

import contextlib
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmcore import errors
from mmcore.core import decoder_process as child
from mmcore.core import decoder_wire as wire
from mmcore.core.decoder_limits import DIED, OUT_OF_MEMORY, TIMEOUT, DecoderLimits
from mmcore.core.in_hand import Refusal
from mmcore.core.process import status_of
from mmcore.errors import AccountingError, MmError, StepError
from mmcore.sample import Json, Outcome, Sample

_LOOK_SECONDS = 0.25
_WALL_FACTOR, _WALL_SECONDS = 3.0, 30.0  # a machine that swaps is no reason to refuse a sample
_MAX_GROWTH_BYTES = 256 * 2**20

Answer = tuple[memoryview, memoryview]
"""The head and the body of what was found."""


class Died(Exception):
    """The process is dead, or as good as dead, and which sample and stage it was at.

    Where it answers questions: which question, and which record of which place.
    """

    def __init__(self, at: "_At", *, was_slow: bool) -> None:
        super().__init__(at)
        self.number = at.number
        self.rule = at.rule
        self.record = at.record
        self.was_slow = was_slow

    def verdict(
        self, exit_code: int, seconds: str, limits: DecoderLimits
    ) -> tuple[str, str] | None:
        """Return the reason and its detail, equal in every run; None where it was killed."""
        if self.was_slow or exit_code == -signal.SIGPROF:
            return TIMEOUT, f"took more than {seconds}"
        if exit_code == child.OUT_OF_MEMORY:
            return OUT_OF_MEMORY, f"needs more than {limits.memory_mb} MB"
        if exit_code == -signal.SIGKILL:
            return None
        if exit_code < 0:
            return DIED, f"its decoder was ended by {signal.Signals(-exit_code).name}"
        return DIED, f"its decoder ended with exit code {exit_code}"


class Hand:
    """The one process that decodes now."""

    def __init__(
        self, end: socket.socket, progress: mmap.mmap, pid: int, limits: DecoderLimits
    ) -> None:
        self.pid = pid
        self.limits = limits
        self.is_untouched = True
        self._end = end
        self._progress = progress
        self._num_bytes_first = 0
        self._told: Json = None

    @property
    def has_grown(self) -> bool:
        """Return whether it holds on to so much memory that another one should take its place."""
        return _num_resident_bytes(self.pid) > self._num_bytes_first + _MAX_GROWTH_BYTES

    def confine(self) -> None:
        """Send the limits, which hold from then on."""
        self._num_bytes_first = _num_resident_bytes(self.pid)
        with contextlib.suppress(wire.ChannelClosed):  # shows with the first sample
            wire.send(self._end, {"memory_bytes": self.limits.memory_mb * 2**20})

    def outcomes(
        self, chain: int, samples: Sequence[Sample], along: Json
    ) -> Iterator[tuple[str, Outcome]]:
        """Yield what becomes of every sample; Died when that cannot be known."""
        seconds = [self.limits.seconds_for(sample) for sample in samples]
        self.is_untouched = False
        watch = _Watch(lambda number: seconds[max(number, 0)], self._at)
        expected = iter(samples)
        try:
            items, parts = wire.pack_samples(samples)
            asked = {"chain": chain, "seconds": seconds, "samples": items}
            if along is not self._told:
                asked["along"] = self._told = along
            self._end.settimeout(None)
            wire.send(self._end, asked, parts)
            self._end.settimeout(_LOOK_SECONDS)
            is_last = False
            while not is_last:
                header, data = wire.receive(self._end, watch.look)
                if "error" in header:
                    raise raised(header["error"])
                for item in header["outcomes"]:
                    before = next(expected, None)
                    if before is None or item[0] != before.key:
                        raise AccountingError(f"nobody asked the decoder process for {item[0]!r}")
                    rule, outcome, num_bytes = wire.unpack(before, item, data)
                    data = data[num_bytes:]
                    yield rule, outcome
                is_last = bool(header.get("is_last"))
        except (wire.ChannelClosed, _TooSlow) as error:
            raise Died(self._at(), was_slow=isinstance(error, _TooSlow)) from None
        if next(expected, None) is not None:
            raise AccountingError("the decoder process left samples out")

    def answers(
        self,
        reading: int,
        questions: Sequence[Json],
        first: int,
        refused: Mapping[tuple[str, int], Refusal],
    ) -> Iterator[tuple[int, Answer | None]]:
        """Yield every answer with the number of its question, of which one is the `first`; None
        where there are no more because one is refused. Died when that cannot be known.
        """
        self.is_untouched = False
        watch = _Watch(lambda _: self.limits.seconds, self._at)
        asked = {
            "reading": reading,
            "questions": list(questions),
            "first": first,
            "seconds": self.limits.seconds,
            "seconds_per_mb": self.limits.seconds_per_mb,
            "refused": [
                (*key, one.reason, one.detail, one.is_last) for key, one in refused.items()
            ],
        }
        try:
            self._end.settimeout(None)
            wire.send(self._end, asked)
            self._end.settimeout(_LOOK_SECONDS)
            at, is_last = first, False
            while not is_last:
                header, data = wire.receive(self._end, watch.look)
                if "error" in header:
                    raise raised(header["error"])
                for number, num_head, num_body in header["answers"]:
                    if not at <= number < first + len(questions):
                        raise AccountingError(f"nobody asked the decoder process for {number!r}")
                    at = number
                    end = num_head + num_body
                    yield number, (data[:num_head], data[num_head:end]) if num_head else None
                    data = data[end:]
                is_last = bool(header.get("is_last"))
        except (wire.ChannelClosed, _TooSlow) as error:
            raise Died(self._at(), was_slow=isinstance(error, _TooSlow)) from None

    def close(self) -> None:
        """Kill it; the nursery has not waited for it, so the number is still its own."""
        if status_of(self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._end.close()

    def _at(self) -> "_At":
        number, record, num_ticks, rule = child.PROGRESS.unpack_from(self._progress)
        return _At(number, record, num_ticks, rule.rstrip(b"\0").decode("ascii", "replace"))


class _At(NamedTuple):
    """What the process has in hand."""

    number: int
    record: int
    num_ticks: int
    rule: str


class _TooSlow(Exception):
    """It neither ends nor is it ended."""


class _Watch:
    """Sees that a sample is not worked on for ever: one that waits uses no processor."""

    def __init__(self, seconds: Callable[[int], float], at: Callable[[], _At]) -> None:
        self._seconds = seconds
        self._at = at
        self._known: tuple[int, int, int] | None = None
        self._since = time.monotonic()

    def look(self) -> None:
        at = self._at()
        now = time.monotonic()
        if at[:3] != self._known:
            self._known, self._since = at[:3], now
        allowed = _WALL_FACTOR * self._seconds(at.number) + _WALL_SECONDS
        if now - self._since > allowed:
            raise _TooSlow


def raised(said: Any) -> Exception:
    """Return the error that a stage has raised: ours as it was, any other with its traceback."""
    module, _, name = said["type"].rpartition(".")
    kind = getattr(errors, name, None) if module == errors.__name__ else None
    if isinstance(kind, type) and issubclass(kind, MmError):
        error = kind.__new__(kind)
        error.args = (said["message"],)
        return error
    return StepError(f"a stage failed: {said['type']}: {said['message']}\n{said['traceback']}")


def _num_resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * mmap.PAGESIZE
    except (FileNotFoundError, ProcessLookupError):
        return 0
