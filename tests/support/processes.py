"""Which processes there are: tests leave none behind."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def import_path(directory: str) -> str:
    """Return the PYTHONPATH of a child that imports from a directory too, besides what we do."""
    return os.pathsep.join(filter(None, (directory, os.environ.get("PYTHONPATH"))))


def children(pid: int | None = None) -> set[int]:
    """Every process below a process, dead ones left out."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state, parent = (
                    Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                parents[int(entry)] = int(parent)
    found = {os.getpid() if pid is None else pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid() if pid is None else pid}
        found |= more


def with_text(text: str) -> set[int]:
    """Every live process, but this one, whose command line or environment holds a text."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                data = Path(f"/proc/{entry}/cmdline").read_bytes()
                data += Path(f"/proc/{entry}/environ").read_bytes()
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if text.encode() in data and state != "Z":
                found.add(int(entry))
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(pids: Iterable[int]) -> None:
    """Kill processes that a test has started and that should have been gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(holds: Callable[[], object], *, seconds: float, what: str) -> None:
    """Wait for something that must come true; fail with what it was when it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.1)
