"""Ranks that train together on this machine, each in a process, and who watches over them."""

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

from mmcore.core.cancel import StopSwitch
from mmcore.errors import MmError, RanksLost, RunCancelled, StepError
from mmcore.executors.children import die_with_parent, free_port, kill_with_all_below
from mmcore.executors.peers import is_of_a_lost_peer
from mmcore.sample import Json

_SPAWN = multiprocessing.get_context("spawn")
_LOOK_SECONDS = 0.25
_BEAT_SECONDS = 2.0
_SILENCE_SECONDS = 15.0
"""A rank that is frozen is given up after so long; found and killed within 30 s, loaded or not."""
_START_SECONDS = 120.0
"""The same for one that has not said anything yet."""
_GRACE_SECONDS = 8.0
"""When a rank has lost a peer: for the one that died to be seen, or to say itself what it met while
it lets go of its files."""
_STOP_SECONDS = 8.0
"""For ranks that were told to stop to write a checkpoint; the run's watchdog waits for 15 s."""

OnReport = Callable[[Mapping[str, Json]], None]


def run_gang(
    function: Callable[[Mapping[str, Any]], Json],
    config: Mapping[str, Any],
    *,
    num_ranks: int,
    on_report: OnReport,
    stop: StopSwitch,
) -> None:
    """Run a function on processes that can reach each other, as `Executor.gang` says."""
    gang = _Gang(function, config, num_ranks, on_report, stop)
    try:
        gang.watch()
    except BaseException:
        if isinstance(stop.error, RunCancelled):
            gang.let_end()
        raise
    finally:
        gang.kill()


class _Gang:
    """The ranks, and what they say."""

    def __init__(
        self,
        function: Callable[[Mapping[str, Any]], Json],
        config: Mapping[str, Any],
        num_ranks: int,
        on_report: OnReport,
        stop: StopSwitch,
    ) -> None:
        self._on_report = on_report
        self._stop = stop
        self._said: Any = _SPAWN.Queue()
        self._done: set[int] = set()
        port = free_port()
        self._ranks: list[SpawnProcess] = []
        for rank in range(num_ranks):
            args = (function, dict(config), rank, num_ranks, port, self._said)
            self._ranks.append(_SPAWN.Process(target=_run_rank, args=args, name=f"rank-{rank}"))
        for process in self._ranks:
            process.start()
        now = time.monotonic()
        self._silent_from = dict.fromkeys(range(num_ranks), now + _START_SECONDS - _SILENCE_SECONDS)
        self._looked_at = now

    def watch(self) -> None:
        """Pass reports on until every rank is done; raise when one of them is not going to be."""
        while len(self._done) < len(self._ranks):
            self._stop.check()
            if not self._listen(_LOOK_SECONDS):
                self._look()

    def let_end(self) -> None:
        """Tell the ranks to stop, and give them the time to say where they were."""
        for process in self._ranks:
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        while any(map(SpawnProcess.is_alive, self._ranks)) and time.monotonic() < deadline:
            try:
                self._listen(_LOOK_SECONDS)
            except StepError:
                return  # it is over for them anyway

    def kill(self) -> None:
        """Leave no rank behind, and nothing that one has started."""
        for process in self._ranks:
            kill_with_all_below(process)

    def _listen(self, seconds: float) -> bool:
        """Take one thing that was said; return whether there was one."""
        try:
            kind, rank, value = self._said.get(timeout=seconds)
        except queue.Empty:
            return False
        self._silent_from[rank] = time.monotonic()
        if kind == "report":
            self._on_report(value)
        elif kind == "done":
            self._done.add(rank)
        elif kind == "failed":
            raise StepError(f"training failed on rank {rank}: {value}")
        elif kind == "lost":
            raise RanksLost(f"rank {rank}: {value}")
        elif kind == "lost a peer":
            self._find_lost(rank, value)
        return True

    def _find_lost(self, rank: int, said: str) -> None:
        """Raise for whoever died; or else what the rank says that noticed."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            self._raise_for_the_dead()
            self._listen(_LOOK_SECONDS)
        raise RanksLost(f"rank {rank} has lost the others: {said}")

    def _raise_for_the_dead(self) -> None:
        for process in self._ranks:
            if process.exitcode is not None and process.exitcode < 0:
                raise RanksLost(
                    f"{process.name} died with exit code {process.exitcode}: it was killed, or the "
                    "machine ran out of memory. Run the same command again."
                )

    def _look(self) -> None:
        """Look for ranks that are dead or silent; all that was said has been heard."""
        now = time.monotonic()
        if now - self._looked_at > _SILENCE_SECONDS / 2:  # it was this process that stood still
            self._silent_from = {rank: max(now, at) for rank, at in self._silent_from.items()}
        self._looked_at = now
        self._raise_for_the_dead()
        for rank, process in enumerate(self._ranks):
            if process.exitcode is not None and rank not in self._done:
                if process.exitcode > 0 or now - self._silent_from[rank] > _GRACE_SECONDS:
                    raise RanksLost(
                        f"{process.name} ended with exit code {process.exitcode} and did not say "
                        "why. Run the same command again."
                    )
            elif rank not in self._done and now - self._silent_from[rank] > _SILENCE_SECONDS:
                raise RanksLost(
                    f"{process.name} has been silent for {_SILENCE_SECONDS:g} s: it is frozen, or "
                    "the machine has no time for it. Run the same command again."
                )


class _StopAsked:
    """Tells a rank whether it has been told to stop; one that never asks is ended at once."""

    def __init__(self) -> None:
        self._is_asked_for = False
        self._was_told = False

    def __call__(self) -> bool:
        self._is_asked_for = True
        return self._was_told

    def on_signal(self, number: int, _: object) -> None:
        if not self._is_asked_for:
            sys.exit(128 + number)
        self._was_told = True


def _run_rank(
    function: Callable[[Mapping[str, Any]], Json],
    config: dict[str, Any],
    rank: int,
    num_ranks: int,
    port: int,
    said: Any,
) -> None:
    die_with_parent()
    should_stop = _StopAsked()
    signal.signal(signal.SIGTERM, should_stop.on_signal)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    config["report"] = (lambda what: said.put(("report", rank, what))) if rank == 0 else _ignore
    config["should_stop"] = should_stop
    with _beating(said, rank):
        try:
            function(config)
        except Exception as error:
            if isinstance(error, RanksLost):
                said.put(("lost", rank, str(error)))
            else:
                # what is meant for people says all there is to say
                what = str(error) if isinstance(error, MmError) else traceback.format_exc()
                said.put(("lost a peer" if is_of_a_lost_peer(error) else "failed", rank, what))
            raise
    said.put(("done", rank, None))


@contextmanager
def _beating(said: Any, rank: int) -> Iterator[None]:
    """Say every few seconds that this process runs: what is frozen says nothing."""
    has_ended = threading.Event()

    def beat() -> None:
        said.put(("beat", rank, None))
        while not has_ended.wait(_BEAT_SECONDS):
            said.put(("beat", rank, None))

    thread = threading.Thread(target=beat, daemon=True, name="beat")
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


def _ignore(_: Mapping[str, Json]) -> None:
    """Rank 0 alone reports."""
