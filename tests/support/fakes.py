"""Fake services of real processes, quick to start and to fail."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import fake_service

from mmcore.operate.orders import Pace
from mmcore.operate.service import Check, Service

QUICK = Pace(
    starting_check_seconds=0.1,
    check_seconds=0.2,
    num_bad_checks=4,
    backoff_seconds=0.1,
    max_failures=3,
    grace_seconds=2.0,
)
Fakes = Callable[..., list[Service]]


def fake(name: str, directory: Path, *, after: tuple[str, ...] = ()) -> Service:
    """A service on a port of its own; what it does is told in a directory."""
    directory.mkdir(exist_ok=True)
    port = free_port()
    return Service(
        name=name,
        command=(sys.executable, str(Path(fake_service.__file__)), str(port), str(directory)),
        check=Check(kind="http", url=f"http://127.0.0.1:{port}/"),
        after=after,
        port_names=(name,),
        shown={"url": f"http://127.0.0.1:{port}", "port": port},
        start_seconds=20.0,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
