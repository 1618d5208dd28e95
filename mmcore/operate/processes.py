"""Which processes there are below others, and how to end them for good.

A process is named by its number and by when it was started: numbers are used again.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmcore.core.process import Status, status_of

_LOOK_SECONDS = 0.05
_KILL_SECONDS = 5.0
# prctl(2)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)

Processes = dict[int, int]
"""When each process was started, in clock ticks since boot, by its number."""


def is_alive(pid: int, started: int) -> bool:
    """Return whether the very process that was started then is still there."""
    status = status_of(pid)
    return status is not None and status.started == started


def alive(processes: Processes) -> Processes:
    """Return those that are still there."""
    return {pid: started for pid, started in processes.items() if is_alive(pid, started)}


def everybody() -> dict[int, Status]:
    """Return every live process, as it is now."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid: status for pid in pids if (status := status_of(pid)) is not None}


def descendants(pids: Iterable[int], among: Mapping[int, Status] | None = None) -> Processes:
    """Return every live process below any of these, those themselves left out."""
    among = everybody() if among is None else among
    children: dict[int, list[int]] = {}
    for pid, status in among.items():
        children.setdefault(status.parent, []).append(pid)
    roots = set(pids)
    found: set[int] = set()
    pending = list(roots)
    while pending:
        news = [pid for pid in children.get(pending.pop(), []) if pid not in found]
        found.update(news)
        pending += news
    return {pid: among[pid].started for pid in found - roots}


def with_environment(entry: str) -> Processes:
    """Return every live process of this user, but this one, started with `NAME=value`."""
    found: Processes = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # gone, or another user's
            entries = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            status = status_of(int(name))
            if os.fsencode(entry) in entries and status is not None:
                found[int(name)] = status.started
    return found


def send(processes: Processes, number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for pid in alive(processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_until_gone(processes: Processes, *, seconds: float) -> Processes:
    """Wait until all have ended; return those that have not in time."""
    deadline = time.monotonic() + seconds
    while left := alive(processes):
        if time.monotonic() > deadline:
            return left
        time.sleep(_LOOK_SECONDS)
    return {}


def kill(processes: Processes) -> Processes:
    """Kill processes and all below them; return those that are there even then."""
    deadline = time.monotonic() + _KILL_SECONDS
    while left := alive(processes):
        left |= descendants(left)
        send(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(_LOOK_SECONDS)
    return {}


def adopt_orphans() -> None:
    """Become the parent of whoever loses his own below this process, however he got there."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for a signal when the thread that started this process ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def kill_children() -> None:
    """Kill and reap whatever is below this process, until nothing is; needs `adopt_orphans`."""
    while True:
        send(descendants([os.getpid()]), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(_LOOK_SECONDS)
