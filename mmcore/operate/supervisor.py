"""`python -m mmcore.operate.supervisor LOCK`: starts services, watches over them, ends them all.

It is two processes. The supervisor does the work. Its guardian does nothing but wait for it, and
is next in line for every process below that loses its parent; so whatever happens to the
supervisor, the guardian finds all that is left and kills it. When the guardian dies, the
supervisor ends everything in good order.

What to start is read from stdin, since it holds secrets: `{"root", "pace", "services": [...]}`.
LOCK is the descriptor of a lock that is held as long as either of them lives.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import FrameType
from typing import Any

from mmcore import storage
from mmcore.core.process import Process
from mmcore.errors import StorageError
from mmcore.operate import processes
from mmcore.operate.connection import FORMAT, FORMAT_VERSION, services_directory
from mmcore.operate.logs import log_path, rotate
from mmcore.operate.orders import Pace, decode, write_processes
from mmcore.operate.service import Service
from mmcore.operate.watched import Watched

_TICK_SECONDS = 0.2
_SECONDS_BETWEEN_COUNTS = 2.0
logger = logging.getLogger("mmcore.operate.supervisor")


class _Stop(BaseException):
    """It was told to end."""


class Supervisor:
    """Services of a root, from their start to their end."""

    def __init__(self, root: str, services: Sequence[Service], pace: Pace) -> None:
        self._root = root
        self._pace = pace
        checks = ThreadPoolExecutor(max_workers=len(services) or 1)
        self._watched = [
            Watched(service, root=root, pace=pace, checks=checks) for service in services
        ]
        self._process = Process.current()
        self._written: dict[str, Any] = {}
        self._recorded: dict[int, int] = {}
        self._next_count = 0.0

    def run(self) -> None:
        """Watch over the services until told to stop, and end them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        try:
            while True:
                self._tick()
                time.sleep(_TICK_SECONDS)
        except _Stop:
            logger.info("told to stop")
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            self._end()
        for name in ("services.json", "processes.json"):
            storage.delete(os.path.join(services_directory(self._root), name))

    def _tick(self) -> None:
        healthy = {one.service.name for one in self._watched if one.state == "healthy"}
        has_changed = False
        for one in self._watched:
            before = one.state
            can_be_well = healthy.issuperset(one.service.after)
            if one.may_start and can_be_well:
                one.start()
            else:
                one.look(ask=can_be_well)
            if one.state != before:
                has_changed = True
                logger.info("%s: %s %s", one.service.name, one.state, one.detail)
        self._reap_adopted()
        if has_changed or time.monotonic() >= self._next_count:
            self._next_count = time.monotonic() + _SECONDS_BETWEEN_COUNTS
            self._count()
        self._write()

    def _count(self) -> None:
        """Take note of all processes, for whoever finds them without us; bound the logs."""
        everybody = processes.everybody()
        for one in self._watched:
            one.count(everybody)
            rotate(log_path(self._root, one.service.name))
        rotate(log_path(self._root, "supervisor"))
        below = processes.descendants([os.getpid()], everybody)
        if below != self._recorded:
            write_processes(self._root, below)
            self._recorded = below

    def _write(self) -> None:
        services = {one.service.name: one.to_json() for one in self._watched}
        if services == self._written:
            return
        state = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "supervisor": asdict(self._process),
            "services": services,
        }
        path = os.path.join(services_directory(self._root), "services.json")
        try:
            storage.write(path, json.dumps(state, indent=1).encode())
            self._written = services
        except StorageError as error:  # a full disk ends no service
            logger.error("%s", error)

    def _reap_adopted(self) -> None:
        """Let go of dead processes that had lost their parent; ours are asked for one by one."""
        ours = {one.pid for one in self._watched}
        with contextlib.suppress(ChildProcessError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in ours:
                    return
                os.waitpid(found.si_pid, 0)

    def _end(self) -> None:
        """End all services: first those that nobody needs, then those that they needed."""
        self._count()
        left = list(self._watched)
        while left:
            needed = {name for one in left for name in one.service.after}
            wave = [one for one in left if one.service.name not in needed] or left
            for one in wave:
                one.ask_to_end()
            self._write()
            deadline = time.monotonic() + self._pace.grace_seconds
            while not all(one.has_ended for one in wave) and time.monotonic() < deadline:
                time.sleep(_TICK_SECONDS / 4)
            left = [one for one in left if one not in wave]
        processes.kill_children()
        logger.info("all services have ended")


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stop


def _guard(supervisor: int) -> int:
    """Wait for the supervisor, kill what it has left, and return its exit code."""

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    _, status = os.waitpid(supervisor, 0)
    processes.kill_children()
    return os.waitstatus_to_exitcode(status)


def main() -> int:
    """Run as guardian and supervisor; return an exit code."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every question
    root, services, pace = decode(sys.stdin.buffer.read())
    os.set_inheritable(int(sys.argv[1]), False)  # the lock: ours and the guardian's alone
    processes.adopt_orphans()
    guardian = os.getpid()
    child = os.fork()
    if child:
        code = _guard(child)
        if code != 0:
            logger.error("the supervisor is gone (%d); what it had started was killed", code)
        return code
    processes.end_with_parent(signal.SIGTERM)
    if os.getppid() != guardian:
        return 1  # it died before the kernel was asked
    processes.adopt_orphans()
    Supervisor(root, services, pace).run()
    # a check may still wait for an answer
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
