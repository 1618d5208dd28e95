"""Which process did something, told apart from another that later gets the same number."""

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_DEAD_STATES = ("Z", "X")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of some machine."""

    host: str
    """For people."""
    machine: str
    """Differs between hosts, between two boots of a host and between two containers of it."""
    pid: int
    started: int
    """In clock ticks since the machine was booted: process numbers are used again."""

    @staticmethod
    def current() -> "Process":
        """Return this process."""
        pid = os.getpid()
        status = status_of(pid)
        assert status is not None, "this process is alive"
        return Process(
            host=socket.gethostname(), machine=this_machine(), pid=pid, started=status.started
        )

    @property
    def is_here(self) -> bool:
        """Return whether it is, or was, a process of this machine, so that it can be looked at."""
        return self.machine == this_machine()

    @property
    def is_alive(self) -> bool:
        """Return whether it still runs; only known of a process that is here."""
        status = status_of(self.pid)
        return status is not None and status.started == self.started

    @property
    def is_stopped(self) -> bool:
        """Return whether it was frozen, by SIGSTOP or a debugger."""
        status = status_of(self.pid)
        return status is not None and status.state in "tT"


@dataclass(frozen=True)
class Status:
    """What the kernel says of a live process."""

    parent: int
    started: int
    state: str


def status_of(pid: int) -> Status | None:
    """Return the status of a process of this machine; None when it is dead, reaped or not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): after the name in brackets come state, parent, and 17 fields on the start
    fields = text.rpartition(")")[2].split()
    if fields[0] in _DEAD_STATES:
        return None
    return Status(parent=int(fields[1]), started=int(fields[19]), state=fields[0])


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Return what no other machine, boot or container has: boot id and process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
