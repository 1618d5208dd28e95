"""What a supervisor is told, and what it leaves for others to find: its lock and its processes.

Light to import, so that `mm status` and `mm down` answer at once.
"""

import fcntl
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmcore import storage
from mmcore.operate.connection import services_directory
from mmcore.operate.processes import Processes
from mmcore.operate.service import Check, Service

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often is looked, and how long is waited."""

    starting_check_seconds: float = 0.5
    check_seconds: float = 5.0
    num_bad_checks: int = 6
    """In a row, after which a service is started anew."""
    backoff_seconds: float = 1.0
    """Before the first new start; doubled with every one that fails."""
    max_backoff_seconds: float = 30.0
    max_failures: int = 5
    """In a row, after which a service is given up."""
    calm_seconds: float = 60.0
    """A service that was well for so long begins with a clean record."""
    grace_seconds: float = 5.0
    """To end by itself before it is killed."""


def encode(root: str, services: Sequence[Service], pace: Pace | None = None) -> bytes:
    """Return what a supervisor reads from its stdin."""
    value = {"root": root, "pace": asdict(pace or Pace())}
    return json.dumps(value | {"services": [asdict(one) for one in services]}).encode()


def decode(data: bytes) -> tuple[str, list[Service], Pace]:
    """Return root, services and pace."""
    value: dict[str, Any] = json.loads(data)
    services = [
        Service(
            **{
                **one,
                "check": Check(**one["check"]),
                "command": tuple(one["command"]),
                "after": tuple(one["after"]),
                "port_names": tuple(one["port_names"]),
            }
        )
        for one in value["services"]
    ]
    return value["root"], services, Pace(**value["pace"])


def lock(root: str) -> int | None:
    """Take the lock of a root's services; None when another holds it.

    Whoever starts services takes it and hands it to supervisor and guardian, which hold it
    together: it is free when both, and thus all, are gone.
    """
    path = os.path.join(services_directory(root), "lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def read_processes(root: str) -> Processes:
    """Return the processes that were last seen below a supervisor."""
    data = storage.read_if_exists(os.path.join(services_directory(root), "processes.json"))
    try:
        return {int(pid): int(started) for pid, started in json.loads(data or b"{}").items()}
    except (ValueError, AttributeError):
        return {}  # cut off by a power cut, which has ended them as well


def write_processes(root: str, found: Processes) -> None:
    """Take note of processes; no more than a note, so no disk is waited for."""
    path = os.path.join(services_directory(root), "processes.json")
    try:
        with open(f"{path}.new", "w", encoding="ascii") as file:
            json.dump(found, file)
        os.replace(f"{path}.new", path)
    except OSError as error:  # a full disk ends no service
        logger.error("cannot write %s: %s", path, error)
