"""The trainer's end of its reader process: what to read goes over, arrays come back by a ring.

A trainer waits no longer than a batch takes to be made; when it takes none, the reader is at rest
once the slots are full.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from tokenizers import Tokenizer

import mmcore.errors
from mmcore.errors import MmError, RanksLost, StepError
from mmcore.load.cache import Group, ShardCache
from mmcore.load.decode import DecodeConfig, Decoder
from mmcore.load.reading import Wanted
from mmcore.load.ring import Arena, Array, Placed, Ring

_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_CLOSE_SECONDS = 2.0
_LOOK_SECONDS = 2.0
_MAX_SILENT_LOOKS = 7
"""A reader that says nothing, though it is asked as often, is frozen: found within 30 s."""
_MAX_SILENT_LOOKS_AT_START = 60
_HEARD_AT_ONCE = 1 << 16

Arrays = Mapping[str, Array]


class Maker(Protocol):
    """Makes batches in the order in which they are asked for."""

    @property
    def batch_size(self) -> int:
        """How many samples a batch may have."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether one more can be asked for before the next is taken."""
        ...

    def learn(self, groups: Sequence[Group]) -> None:
        """Begin to fetch what will be asked for, where that takes time."""
        ...

    def ask(self, wanted: Sequence[Wanted], *, seed: int) -> None:
        """Ask for a batch."""
        ...

    def take(self) -> Arrays:
        """Return the batch that was asked for first; what went wrong with it is raised here."""
        ...

    def drop(self) -> None:
        """Forget what was asked for and not taken."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class InProcess:
    """Makes batches when they are taken, in this process."""

    def __init__(self, decoder: Decoder, *, num_slots: int, batch_size: int) -> None:
        self._batch_size = batch_size
        self._decoder = decoder
        # memory that is new for every batch would cost a tenth of decoding into it
        num_bytes = decoder.config.batch_bytes(batch_size)
        self._ring = Ring(num_slots, num_bytes, is_shared=False)
        self._asked: deque[tuple[Sequence[Wanted], int]] = deque()

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def has_room(self) -> bool:
        return not self._asked

    def learn(self, groups: Sequence[Group]) -> None:
        self._decoder.reader.learn(groups)

    def ask(self, wanted: Sequence[Wanted], *, seed: int) -> None:
        self._asked.append((wanted, seed))

    def take(self) -> Arrays:
        wanted, seed = self._asked.popleft()
        slot = self._ring.take()
        arena = Arena(self._ring.memory(slot))
        try:
            self._decoder.fill(wanted, arena, seed=seed)
        except BaseException:
            self._ring.give_back(slot)
            raise
        return self._ring.arrays(slot, arena.placed)

    def drop(self) -> None:
        self._asked.clear()

    def close(self) -> None:
        self._ring.close()


class ReaderProcess:
    """Makes batches in a process of its own, a few of them ahead."""

    def __init__(
        self,
        config: DecodeConfig,
        tokenizer: Tokenizer,
        *,
        cache: ShardCache | None,
        num_threads: int,
        num_slots: int,
        batch_size: int,
    ) -> None:
        self._batch_size = batch_size
        self._ring = Ring(num_slots, config.batch_bytes(batch_size))
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "mmcore.load.reader_process"]
        numbers = (theirs.fileno(), self._ring.handle, self._ring.slot_bytes, os.getpid())
        self._process = subprocess.Popen(
            [*command, *map(str, numbers)],
            pass_fds=[theirs.fileno(), self._ring.handle],
            stdin=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()
        self._socket = ours
        self._heard = b""
        self._has_spoken = False
        self._num_asked = 0
        self._num_dropped = 0
        told = {
            "config": asdict(config),
            "tokenizer": tokenizer.to_str(),
            "cache": [cache.directory, cache.max_bytes] if cache else None,
            "num_threads": num_threads,
        }
        self._send(told)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def has_room(self) -> bool:
        return self._ring.num_free > 0

    def learn(self, groups: Sequence[Group]) -> None:
        if groups:
            self._send({"groups": groups})

    def ask(self, wanted: Sequence[Wanted], *, seed: int) -> None:
        while not self._ring.num_free:  # what nobody wants any more is under way
            self._discard()
        slot = self._ring.take()
        self._send({"slot": slot, "seed": seed, "wanted": wanted, "groups": ()})
        self._num_asked += 1

    def take(self) -> Arrays:
        while self._num_dropped:
            self._discard()
        answer = self._answer()
        if "error" in answer:
            self._ring.give_back(answer["slot"])
            raise _error_of(*answer["error"])
        return self._ring.arrays(answer["slot"], [Placed(*one) for one in answer["placed"]])

    def drop(self) -> None:
        self._num_dropped = self._num_asked

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._ring.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:  # a fetch that hangs
            self._process.kill()
            self._process.wait()

    def _discard(self) -> None:
        self._ring.give_back(self._answer()["slot"])
        self._num_dropped -= 1

    def _answer(self) -> dict[str, Any]:
        while "slot" not in (answer := json.loads(self._line())):
            pass  # it has said that it is there
        self._num_asked -= 1
        return dict(answer)

    def _line(self) -> bytes:
        num_silent = 0
        while b"\n" not in self._heard:
            self._socket.settimeout(_LOOK_SECONDS)
            try:
                data = self._socket.recv(_HEARD_AT_ONCE)
            except TimeoutError:
                # looks and not seconds: this process may have stood still itself
                num_silent += 1
                most = _MAX_SILENT_LOOKS if self._has_spoken else _MAX_SILENT_LOOKS_AT_START
                if num_silent > most:
                    raise self._frozen() from None
                self._send({"groups": (), "is_there": True})
                continue
            except ConnectionError:
                data = b""
            if not data:
                raise self._dead()
            num_silent, self._has_spoken = 0, True
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _send(self, message: dict[str, Any]) -> None:
        # it always listens, and takes what is sent at once, but while it starts
        looks = _MAX_SILENT_LOOKS if self._has_spoken else _MAX_SILENT_LOOKS_AT_START
        self._socket.settimeout(looks * _LOOK_SECONDS)
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except TimeoutError:
            raise self._frozen() from None
        except ConnectionError as error:
            raise self._dead() from error

    def _frozen(self) -> RanksLost:
        self._process.kill()
        return RanksLost(
            f"the reader process {self._process.pid} of this rank has been silent for "
            f"{_MAX_SILENT_LOOKS * _LOOK_SECONDS:g} s: it is frozen, or the machine has no time "
            "for it. Run the same command again."
        )

    def _dead(self) -> StepError:
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        # one that was killed may live when it is started again; one that ended by itself would not
        error = RanksLost if code < 0 else StepError
        return error(
            f"the reader process {self._process.pid} of this rank died ({how}): it was killed, or "
            "the machine ran out of memory. Run the same command again; with less memory, lower "
            "loader.max_cache_bytes or loader.num_slots, or read in the trainer with "
            "loader.workers=0."
        )


def _error_of(name: str, message: str) -> MmError:
    found = getattr(mmcore.errors, name, None)
    if isinstance(found, type) and issubclass(found, MmError):
        error: MmError = found(message)
        return error
    return StepError(f"the reader process failed: {name}: {message}")
