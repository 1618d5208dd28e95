"""Kills what a dead driver leaves behind, or a living one that does not stop.

Ray's processes end with their driver, but some of its agents may wait a minute for a head that is
gone, under a name and an environment that they have overwritten. So a process of our own watches
who descends from the driver, and when the driver is gone kills those that are not.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mmcore.core.process import Status, status_of

_LET_GO = b"."
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 2.0
_MODULE = "mmcore.executors.reaper"

Processes = dict[int, int]
"""When each process was started, in ticks since boot, by its number: numbers are used again."""


class Reaper:
    """Watches over the descendants of this process until it is closed."""

    def __init__(self) -> None:
        self._strangers = descendants(os.getpid())
        command = [sys.executable, "-m", _MODULE, str(os.getpid())]
        # in a session of its own: Ctrl-C is for the driver, which then lets go
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def clear(self) -> None:
        """Kill the descendants that have come since, after a moment in which they may end alone."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS / 5)
        kill_all(left)

    def _left(self) -> Processes:
        others = {*self._strangers, self._process.pid}
        return {pid: at for pid, at in descendants(os.getpid()).items() if pid not in others}

    def close(self) -> None:
        """Let go of the descendants."""
        self._process.communicate(_LET_GO)


def descendants(pid: int, seen: dict[int, Status] | None = None) -> Processes:
    """Return every live process below a process, this one left out.

    `seen` is what the look before has left: only processes that are not in it are asked. Asking
    all twice a second took more of the processor than any process of an idle cluster.
    """
    seen = {} if seen is None else seen
    there = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    for gone in seen.keys() - there:
        del seen[gone]
    for new in there - seen.keys():
        if (status := status_of(new)) is not None:
            seen[new] = status
    found: set[int] = {pid}
    while more := {child for child, one in seen.items() if one.parent in found} - found:
        found |= more
    return {child: seen[child].started for child in found - {pid, os.getpid()} if child in seen}


def watch(driver: int) -> Processes:
    """Return who is left when the driver is gone; nobody when it has let go."""
    known: Processes = {}
    seen: dict[int, Status] = {}
    while os.getppid() == driver:
        known |= descendants(driver, seen)
        if select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
            if os.read(sys.stdin.fileno(), 1) == _LET_GO:
                return {}
            time.sleep(_LOOK_SECONDS)  # its end of the pipe is closed: it is dying
    return known


def reap(left: Processes) -> None:
    """Kill processes and what descends from them, after a moment in which they may end alone."""
    time.sleep(_GRACE_SECONDS)
    below: Processes = {}
    for pid in left:
        below |= descendants(pid)
    kill_all({**left, **below})


def kill_below(pid: int) -> None:
    """Kill all that descends from a process, but for its reapers, which look after the rest."""
    below = descendants(pid)
    kill_all({child: started for child, started in below.items() if not _is_reaper(child)})


def kill_all(processes: Mapping[int, int]) -> None:
    """Kill processes, unless they are gone and their numbers used again."""
    for pid, started in processes.items():
        status = status_of(pid)
        if status is not None and status.started == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_reaper(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return _MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


if __name__ == "__main__":
    reap(watch(int(sys.argv[1])))
