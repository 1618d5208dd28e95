"""Decodes bytes from outside in a process whose death costs one sample.

A worker hands samples to its decoder process in batches and gets outcomes back in batches, so
that nothing is forked or waited for per sample. When that process dies, runs out of memory or
takes too long, the sample it had in hand is tried once more in a process that has seen nothing
else, so that the verdict depends on no neighbour: it is quarantined if that dies too, and the
others go on.
"""

import atexit
import contextlib
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from mmcore.core import decoder_process as child
from mmcore.core import decoder_wire as wire
from mmcore.core.decoder_hand import Died, Hand, raised
from mmcore.core.decoder_limits import TIMEOUT, DecoderLimits
from mmcore.errors import StepError
from mmcore.sample import Json, Outcome, Quarantined, Sample

Decode = child.Decode

MAX_KILLED = 3
_CLOSE_SECONDS = 2.0
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Buildable(Protocol):
    """What travels to the decoder process and is built there."""

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Any]: ...


class Chain(Protocol):
    """What is done to every sample; it travels to the decoder process and is built there."""

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Decode]:
        """Return what makes the function that does it, which says what stage has it in hand.

        It is made anew for each task, of what the chain may know of that task.
        """
        ...


class Decoder:
    """A decoder process and the connection to it."""

    def __init__(self) -> None:
        self._hand: Hand | None = None
        self._built = b""
        self._num_restarts = 0
        self._start()

    @property
    def is_alive(self) -> bool:
        """Return whether it can be asked for anything."""
        return self._nursery.poll() is None

    def build(self, chains: Sequence[Buildable]) -> None:
        """Make it ready for some chains, if it is not; raise what building them raises."""
        pickled = pickle.dumps(tuple(chains))
        if pickled != self._built:
            self.let_go()
            self._build(pickled)

    def outcomes(
        self, chain: int, samples: Sequence[Sample], limits: DecoderLimits, along: Json = None
    ) -> Iterator[tuple[str, Outcome]]:
        """Yield what becomes of every sample, in order, and by which stage.

        `along` is what the chains may know of this task. Each process is told of it once: what a
        chain learns from a sample it knows with the next, as long as it is given the same object.
        """
        verdicts: dict[int, tuple[str, Outcome]] = {}
        num_killed: Counter[int] = Counter()
        suspect: int | None = None
        self._num_restarts = 0
        at = 0
        while at < len(samples):
            if at in verdicts:
                yield verdicts.pop(at)
                at += 1
                continue
            first, stop = at, min((*verdicts, len(samples)))
            if suspect is not None:
                # up to it as before; then it alone, in a process that has seen nothing else
                stop = at + 1 if suspect == at else min(stop, suspect)
            hand = self.ready(limits, is_new=suspect == at)
            is_certain = hand.is_untouched
            try:
                for outcome in hand.outcomes(chain, samples[first:stop], along):
                    yield outcome
                    at += 1
                suspect = None if suspect is not None and at > suspect else suspect
            except Died as death:
                number = max(at, first + death.number)
                sample = samples[number]
                seconds = f"{limits.seconds_for(sample):.4g} s"
                found = death.verdict(self.end(), seconds, limits)
                if found is None:
                    num_killed[number] += 1
                    if num_killed[number] == MAX_KILLED:
                        raise killed() from None
                is_certain = is_certain and number == first
                if found is not None and (is_certain or found[0] == TIMEOUT):
                    verdicts[number] = (death.rule, Quarantined(sample, *found))
                    suspect = None
                else:
                    suspect = number
            except BaseException:
                self.let_go()
                raise

    def close(self) -> None:
        """End it."""
        if self._hand is not None:
            self._hand.close()
            self._hand = None
        self._control.close()
        try:
            self._nursery.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._nursery.kill()
            self._nursery.wait()

    def _start(self) -> None:
        ours, theirs = wire.channel()
        self._nursery = subprocess.Popen(
            # -P: nothing is imported from the directory in which somebody happens to be
            [sys.executable, "-P", "-m", child.__name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()
        self._control = ours

    def _restart(self) -> None:
        """Take another nursery for one that somebody has killed, a bounded number of times."""
        self._num_restarts += 1
        if self._num_restarts == MAX_KILLED:
            raise killed()
        self.close()
        self._start()
        self._build(self._built)

    def _build(self, pickled: bytes) -> None:
        self._built = b""
        try:
            self._control.sendall(child.BUILD)
            wire.send(self._control, [str(one) for one in sys.path])
            wire.send(self._control, None, [pickled])
            said, _ = wire.receive(self._control, _ignore)
        except (wire.ChannelClosed, BrokenPipeError, ConnectionResetError):
            raise killed() from None
        if said is not None:
            raise raised(said)
        self._built = pickled

    def ready(self, limits: DecoderLimits, *, is_new: bool) -> Hand:
        """Return the process that decodes; another one where that has become too large, or where
        a new one is wanted.
        """
        hand = self._hand
        if hand is not None and (is_new or hand.limits != limits or hand.has_grown):
            self.let_go()
        while self._hand is None:
            try:
                self._hand = self._forked(limits)
            except (wire.ChannelClosed, BrokenPipeError, ConnectionResetError):
                self._restart()
        return self._hand

    def _forked(self, limits: DecoderLimits) -> Hand:
        ours, theirs = wire.channel()
        progress = os.memfd_create("mm-decoder-progress")
        os.truncate(progress, child.PROGRESS.size)
        try:
            socket.send_fds(self._control, [child.FORK], [theirs.fileno(), progress])
            pid, _ = wire.receive(self._control, _ignore)
            shared = mmap.mmap(progress, child.PROGRESS.size)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(progress)
        hand = Hand(ours, shared, pid, limits)
        hand.confine()
        return hand

    def let_go(self) -> None:
        """End what decodes; another one will be there when it is wanted."""
        if self._hand is not None:
            self.end()

    def end(self) -> int:
        """Kill what decodes, if it still does, and return how it ended."""
        hand, self._hand = self._hand, None
        assert hand is not None, "there is one"
        hand.close()
        try:
            self._control.sendall(child.WAIT)
            wire.send(self._control, [hand.pid])
            return int(wire.receive(self._control, _ignore)[0])
        except (wire.ChannelClosed, BrokenPipeError, ConnectionResetError):
            self._restart()
            return -signal.SIGKILL


_idle: list[Decoder] = []
_lock = threading.Lock()
_owner = os.getpid()


@contextlib.contextmanager
def borrowed(chains: Sequence[Buildable]) -> Iterator[Decoder]:
    """Give a decoder process of this process that is ready for some chains.

    It is kept for the next borrower: starting one and importing the stages takes half a second.
    """
    global _owner
    with _lock:
        if _owner != os.getpid():  # a fork has not inherited them
            _idle.clear()
            _owner = os.getpid()
        decoder = _idle.pop() if _idle else None
    if decoder is not None and not decoder.is_alive:
        decoder.close()
        decoder = None
    decoder = decoder or Decoder()
    try:
        decoder.build(chains)
        yield decoder
    except BaseException:
        decoder.close()
        raise
    with _lock:
        _idle.append(decoder)


def close_idle() -> None:
    """End the decoder processes that nobody uses now."""
    with _lock:
        found = _idle[:] if _owner == os.getpid() else []
        _idle.clear()
    for decoder in found:
        decoder.close()


atexit.register(close_idle)


def killed() -> StepError:
    """Return the error for a process that somebody ends again and again."""
    return StepError(
        f"the decoder process was killed {MAX_KILLED} times: by somebody, or because the machine "
        "runs out of memory. Run again with fewer --workers; finished tasks are kept."
    )


def _ignore() -> None:
    """The control connection has no timeout."""
