"""From nothing to running services and back: what `mm up`, `mm status` and `mm down` do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mmcore import storage
from mmcore.errors import StepError
from mmcore.operate import orders, ports, processes
from mmcore.operate.connection import read_services, running_services, services_directory
from mmcore.operate.logs import last_lines, log_path, open_log
from mmcore.operate.orders import Pace
from mmcore.operate.processes import Processes
from mmcore.operate.service import Service
from mmcore.operate.services import OWNED_BY, base_environment, forget_ray_sessions, remove_ray_link

_LOOK_SECONDS = 0.1
_SECONDS_BETWEEN_WORDS = 10.0
_STOP_SECONDS = 20.0
_SWEEP_SECONDS = 10.0
"""For a guardian whose supervisor was killed."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """How a service is."""

    name: str
    state: str
    detail: str
    address: str
    """URL, or `host:port`; empty when it has none."""
    pid: int | None
    uptime_seconds: float | None
    restarts: int
    log: str

    @property
    def is_well(self) -> bool:
        return self.state == "healthy"


class AlreadyUpError(StepError):
    """Services of this root run, or another command starts or stops them: nothing to do here."""


def start(
    services: Sequence[Service],
    *,
    root: str,
    assigned: Mapping[str, int],
    say: Say,
    pace: Pace | None = None,
) -> None:
    """Start services and wait until all are well; if one fails, none is left running.

    AlreadyUpError when they run; ConfigError when a port is taken; StepError when one fails.
    """
    if running_services(root) is not None:
        raise AlreadyUpError(f"the services of {root} run already. See: mm status")
    handle = _take_lock(root, seconds=_SWEEP_SECONDS)
    if handle is None:
        raise AlreadyUpError(
            f"another command is starting or stopping services of {root}. See: mm status"
        )
    try:
        if left := sweep(root):
            say(f"killed {left} processes that services of {root} had left behind")
        ports.require_free({name: assigned[name] for one in services for name in one.port_names})
        forget_ray_sessions(root)
        child = _start_supervisor(orders.encode(root, services, pace), root, handle)
    finally:
        os.close(handle)
    try:
        _wait_until_well(child, root, say)
    except (StepError, KeyboardInterrupt):
        child.terminate()  # it may not have got so far as to be found
        stop(root)
        raise


def stop(root: str) -> int:
    """End all services of a root; return how many processes there were.

    StepError when one cannot be ended.
    """
    if not os.path.isdir(services_directory(root)):
        return 0
    found = left_behind(root)
    found |= _end_supervisor(root)
    handle = _take_lock(root, seconds=_SWEEP_SECONDS)
    if handle is None:
        raise StepError(
            f"another command is starting services of {root}. Wait for it; then: mm down"
        )
    try:
        sweep(root)
    finally:
        os.close(handle)
    remove_ray_link(root)
    if left := processes.alive(found):
        raise StepError(
            f"cannot end {', '.join(map(str, left))}, started by services of {root}. They may "
            "wait for a disk; look with: ps -o pid,stat,wchan,args -p PID"
        )
    return len(found)


def status(root: str) -> list[ServiceStatus]:
    """Return how each service of a root is; empty when none was started."""
    state = read_services(root)
    if state is None:
        return []
    is_watched = running_services(root) is not None
    return [_status(name, value, is_watched) for name, value in state["services"].items()]


def sweep(root: str) -> int:
    """Kill what dead supervisors of a root have left, and forget them; return how many.

    Only for who holds the lock of the root.
    """
    left = left_behind(root)
    processes.kill(left)
    for name in ("services.json", "processes.json"):
        storage.delete(os.path.join(services_directory(root), name))
    return len(left)


def left_behind(root: str) -> Processes:
    """Return the processes that services of a root have started and that are there."""
    recorded = orders.read_processes(root)
    marked = processes.with_environment(f"{OWNED_BY}={os.path.abspath(root)}")
    found = processes.alive(recorded) | marked
    return found | processes.descendants(found)


def _start_supervisor(told: bytes, root: str, handle: int) -> "subprocess.Popen[bytes]":
    log = open_log(root, "supervisor")
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "mmcore.operate.supervisor", str(handle)],
            env=base_environment(root),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[handle],
        )
    finally:
        os.close(log)
    assert child.stdin is not None
    with child.stdin as stdin:
        stdin.write(told)
    return child


def _wait_until_well(child: "subprocess.Popen[bytes]", root: str, say: Say) -> None:
    """Tell of each service when its state changes; StepError when one fails."""
    told: dict[str, str] = {}
    began = last_word = time.monotonic()
    while True:
        state = running_services(root)
        services: dict[str, Any] = state["services"] if state else {}
        for name, value in services.items():
            if value["state"] != told.get(name) and value["state"] != "waiting":
                told[name] = value["state"]
                say(_words(name, value))
                last_word = time.monotonic()
        if any(value["state"] == "failed" for value in services.values()):
            raise StepError(_failure(services))
        if services and all(value["state"] == "healthy" for value in services.values()):
            return
        code = child.poll()
        if code == 0:
            raise StepError(f"another command has stopped the services of {root}.")
        if code is not None:
            raise StepError(
                f"the supervisor ended with code {code}.\n"
                + "\n".join(last_lines(log_path(root, "supervisor")))
            )
        if time.monotonic() - last_word > _SECONDS_BETWEEN_WORDS:
            last_word = time.monotonic()
            waiting = [name for name, value in services.items() if value["state"] != "healthy"]
            say(f"{last_word - began:5.0f} s  still waiting for {', '.join(waiting)}")
        time.sleep(_LOOK_SECONDS)


def _words(name: str, value: Mapping[str, Any]) -> str:
    where = value.get("url") or value.get("address") or ""
    if value["state"] == "starting":
        expected = f"  ({value['first_start']})" if value["first_start"] else ""
        return f"  {name:<10} starting, logs to {value['log']}{expected}"
    if value["state"] == "healthy":
        return f"  {name:<10} well after {value['ready_seconds']:.1f} s  {where}".rstrip()
    return f"  {name:<10} {value['state']}  {value['detail']}".rstrip()


def _failure(services: Mapping[str, Any]) -> str:
    said = []
    for name, value in services.items():
        if value["state"] == "failed":
            lines = "\n".join(f"    {line}" for line in last_lines(value["log"]))
            said.append(f"{name} {value['detail']}. The end of {value['log']}:\n{lines}")
    return "\n".join([*said, "nothing was left running."])


def _status(name: str, value: Mapping[str, Any], is_watched: bool) -> ServiceStatus:
    uptime = None
    if value["started_at"] and value["pid"] is not None and is_watched:
        began = datetime.fromisoformat(value["started_at"])
        uptime = max(0.0, (datetime.now(UTC) - began).total_seconds())
    return ServiceStatus(
        name=name,
        state=value["state"] if is_watched else "dead",
        detail=value["detail"] if is_watched else "its supervisor died, and took it along",
        address=value.get("url") or value.get("address") or "",
        pid=value["pid"] if is_watched else None,
        uptime_seconds=uptime,
        restarts=value["restarts"],
        log=value["log"],
    )


def _take_lock(root: str, *, seconds: float) -> int | None:
    """Wait until nobody runs, starts or stops services, and keep others from it.

    None when they run, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while (handle := orders.lock(root)) is None:
        if time.monotonic() > deadline or running_services(root) is not None:
            return None
        time.sleep(_LOOK_SECONDS)
    return handle


def _end_supervisor(root: str) -> Processes:
    """Tell a supervisor to end, and kill one that does not; return it and what was below it."""
    state = running_services(root)
    if state is None:
        return {}
    pid, started = state["supervisor"]["pid"], state["supervisor"]["started"]
    found = processes.descendants([pid])
    processes.send({pid: started}, signal.SIGTERM)
    left = processes.wait_until_gone({pid: started}, seconds=_STOP_SECONDS)
    processes.send(left, signal.SIGKILL)
    processes.wait_until_gone(left, seconds=_SWEEP_SECONDS)
    return found | {pid: started}
