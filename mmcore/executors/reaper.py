"""Kills what a dead driver leaves behind.

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
from pathlib import Path

_LET_GO = b"."
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 2.0

Processes = dict[int, int]
"""When each process was started, in ticks since boot, by its number: numbers are used again."""


class Reaper:
    """Watches over the descendants of this process until it is closed."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "mmcore.executors.reaper", str(os.getpid())]
        # in a session of its own: Ctrl-C is for the driver, which then lets go
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def close(self) -> None:
        """Let go of the descendants."""
        self._process.communicate(_LET_GO)


def descendants(pid: int) -> Processes:
    """Return every live process below a process, this one left out."""
    parents: dict[int, int] = {}
    started: Processes = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # proc(5): after the name in brackets come state, parent, and 17 fields on the start
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                parents[int(name)], started[int(name)] = int(fields[1]), int(fields[19])
    found: set[int] = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: started[child] for child in found - {pid, os.getpid()}}


def watch(driver: int) -> Processes:
    """Return who is left when the driver is gone; nobody when it has let go."""
    known: Processes = {}
    while os.getppid() == driver:
        known |= descendants(driver)
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
    for pid, started in {**left, **below}.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[19]) == started:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    reap(watch(int(sys.argv[1])))
