"""The child in which bytes from outside are decoded: `python -m mmcore.core.decoder_process FD`.

It is two processes. The nursery imports the stages, builds them, reads nothing of anybody, and
forks; what it forks decodes, under limits that the kernel holds, and may die of any sample: the
next one is there in milliseconds. The nursery has one thread and ends with the connection to its
worker; what it forked ends with the nursery.
"""

import contextlib
import ctypes
import gc
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from mmcore.core import decoder_wire as wire
from mmcore.core.decoder_reads import answer_all
from mmcore.sample import Json, Outcome, Sample

BUILD, FORK, WAIT = b"B", b"F", b"W"
OUT_OF_MEMORY = 77
"""The exit code of a child that ran into its limit of memory and noticed."""
PROGRESS = struct.Struct("<qqq64s")
"""The number of the sample in hand and the stage that has it; or the number of the question, that
of the record in hand with its place, and how far it is with that."""
IDLE = -1

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_MAX_OPEN_FILES = 256
_FLUSH_OUTCOMES = 32
_FLUSH_BYTES = 2**20
_LONGEST_SECONDS = 2**31 // 1000

Decode = Callable[[Sample], tuple[str, Outcome]]
Make = Callable[[Json], Any]
"""Makes what decodes (`Decode`) or what reads (`decoder_reads.Read`), of what it may know."""


def main() -> None:
    """Be the nursery until the worker is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then lets go
    # what a worker blocks or ignores is inherited, and would let a sample work on without end
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    progress = _Progress()
    decode: Sequence[Make] = ()
    while True:
        command, fds, _, _ = socket.recv_fds(control, 1, 2)
        if command == BUILD:
            decode = _build(control, progress)
        elif command == FORK:
            _fork(control, fds, decode, progress)
        elif command == WAIT:
            (pid,), _ = wire.receive(control, _never)
            wire.send(control, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            os._exit(0)


class _Progress:
    """What the worker reads when this process is dead: memory that both have mapped."""

    def __init__(self) -> None:
        self.number = IDLE
        self._shared: mmap.mmap | None = None
        self._num_ticks = 0
        self._entered = (0, b"")

    def share(self, fd: int) -> None:
        self._shared = mmap.mmap(fd, PROGRESS.size)

    def enter(self, rule: str, record: int = 0) -> None:
        """Say which stage has the sample in hand, or which record of what is in hand."""
        self._entered = (record, rule.encode()[:64])
        if self._shared is not None:
            record, name = self._entered
            PROGRESS.pack_into(self._shared, 0, self.number, record, self._num_ticks, name)

    def tick(self) -> None:
        """Say that what is in hand takes long and goes on."""
        self._num_ticks += 1
        if self._shared is not None:
            record, name = self._entered
            PROGRESS.pack_into(self._shared, 0, self.number, record, self._num_ticks, name)


def _build(control: socket.socket, progress: _Progress) -> Sequence[Make]:
    path, _ = wire.receive(control, _never)
    sys.path[:] = path
    _, pickled = wire.receive(control, _never)
    try:
        decode = [chain.build(progress.enter) for chain in pickle.loads(pickled)]  # noqa: S301
    except Exception as error:  # told to the worker, which raises it
        wire.send(control, _said(error))
        return ()
    gc.collect()
    gc.freeze()  # else the collector of each child writes to, and so copies, every page
    wire.send(control, None)
    return decode


def _fork(
    control: socket.socket, fds: list[int], decode: Sequence[Make], progress: _Progress
) -> None:
    nursery = os.getpid()
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        wire.send(control, pid)
        return
    try:
        control.close()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != nursery:
            os._exit(1)
        progress.share(fds[1])
        _decode_for(socket.socket(fileno=fds[0]), decode, progress)
    finally:
        os._exit(1)


def _decode_for(end: socket.socket, makers: Sequence[Make], progress: _Progress) -> NoReturn:
    """Decode what is asked for until the worker lets go."""
    try:
        limits, _ = wire.receive(end, _never)
        _confine(limits["memory_bytes"])
        decode = [make(None) for make in makers]
        while True:
            asked, data = wire.receive(end, _never)
            if "along" in asked:
                decode = [make(asked["along"]) for make in makers]
            if "questions" in asked:
                with _telling(end):
                    answer_all(end, asked, decode[asked["reading"]], progress)
                continue
            samples = wire.unpack_samples(asked["samples"], data)
            _decode_all(end, samples, decode[asked["chain"]], asked["seconds"], progress)
    except wire.ChannelClosed:
        os._exit(0)


def _decode_all(
    end: socket.socket,
    samples: Sequence[Sample],
    decode: Decode,
    seconds: Sequence[float],
    progress: _Progress,
) -> None:
    items: list[Any] = []
    data: list[bytes] = []
    for number, (sample, at_most) in enumerate(zip(samples, seconds, strict=True)):
        progress.number = number
        progress.enter("")
        signal.setitimer(signal.ITIMER_PROF, min(at_most, _LONGEST_SECONDS))
        with _telling(end):
            items.append(wire.pack(sample, *decode(sample), data))
        if len(items) >= _FLUSH_OUTCOMES or sum(map(len, data)) >= _FLUSH_BYTES:
            wire.send(end, {"outcomes": items}, data)
            items, data = [], []
    signal.setitimer(signal.ITIMER_PROF, 0)
    progress.number = IDLE
    progress.enter("")
    wire.send(end, {"outcomes": items, "is_last": True}, data)


@contextlib.contextmanager
def _telling(end: socket.socket) -> Iterator[None]:
    """End with what goes wrong; but for lack of memory the worker is told of it."""
    try:
        yield
    except wire.ChannelClosed:
        raise
    except Exception as error:
        if _is_lack_of_memory(error):
            os._exit(OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        wire.send(end, {"error": _said(error)})
        os._exit(0)


def _confine(memory_bytes: int) -> None:
    """Set what the kernel holds: memory beyond what the nursery has, files, no new privileges."""
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with open("/proc/self/statm") as statm:
        own = int(statm.read().split()[0]) * resource.getpagesize()
    for what, limit in (
        (resource.RLIMIT_AS, own + memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    ):
        hard = resource.getrlimit(what)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))
    opencv = sys.modules.get("cv2")
    if opencv is not None:
        opencv.setNumThreads(1)  # work is spread over processes; the bytes are the same


def _is_lack_of_memory(error: Exception) -> bool:
    # OpenCV has one class for every error
    words = str(error) if type(error).__module__ == "cv2" else ""
    return isinstance(error, MemoryError) or "Insufficient memory" in words


def _said(error: Exception) -> dict[str, str]:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    where = "".join(traceback.format_exception(error))
    return {"type": name, "message": str(error), "traceback": where}


def _never() -> None:
    """These sockets have no timeout."""


if __name__ == "__main__":
    main()
