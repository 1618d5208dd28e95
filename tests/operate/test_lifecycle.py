"""Services of real processes: started, failing, restarted, killed, and gone without a trace."""

import os
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import processes as observed
import pytest
from fakes import QUICK, Fakes
from processes import wait_until

from mmcore.core.process import status_of
from mmcore.errors import ConfigError, StepError
from mmcore.operate import lifecycle
from mmcore.operate.connection import read_services, running_services
from mmcore.operate.logs import last_lines
from mmcore.operate.orders import Pace, read_processes
from mmcore.operate.processes import Processes, alive, descendants
from mmcore.operate.service import Service

SECONDS = 30.0


def _start(services: Sequence[Service], root: str, pace: Pace = QUICK) -> list[str]:
    said: list[str] = []
    assigned = {one.name: one.shown["port"] for one in services}
    lifecycle.start(services, root=root, assigned=assigned, say=said.append, pace=pace)
    return said


def _service(root: str, name: str) -> dict[str, Any]:
    state = read_services(root)
    assert state is not None
    service: dict[str, Any] = state["services"][name]
    return service


def _everything(root: str) -> Processes:
    """Supervisor, guardian, services, and all below them; the guardian comes first."""
    supervisor = status_of(_running_supervisor(root))
    assert supervisor is not None
    guardian = status_of(supervisor.parent)
    assert guardian is not None
    return {supervisor.parent: guardian.started} | descendants([supervisor.parent])


def _wait_until_all_are_gone(found: Processes) -> None:
    wait_until(
        lambda: not alive(found),
        seconds=SECONDS,
        what="gone: " + ", ".join(observed.command_of(pid) for pid in found),
    )


def test_services_start_in_the_order_of_their_needs_and_all_are_well_when_start_returns(
    root: str, fakes: Fakes
) -> None:
    said = _start(fakes("first", "second", after=("first",)), root)
    assert [one.state for one in lifecycle.status(root)] == ["healthy", "healthy"]
    words = [(line.split()[0], line.split()[1].rstrip(",")) for line in said]
    assert words.index(("first", "well")) < words.index(("second", "starting"))
    assert last_lines(_service(root, "first")["log"]) == ["ready"]


def test_down_leaves_no_process_not_even_one_that_forgot_where_it_came_from(
    root: str, fakes: Fakes
) -> None:
    _start(fakes("one", "two"), root)
    found = _everything(root)
    assert len(found) == 2 + 2 * 2
    assert lifecycle.stop(root) >= 5
    assert alive(found) == {}
    assert lifecycle.status(root) == []


def test_down_of_what_does_not_run_does_nothing(root: str) -> None:
    assert lifecycle.stop(root) == 0


def test_a_second_start_is_told_that_they_run_and_changes_nothing(root: str, fakes: Fakes) -> None:
    services = fakes("one")
    _start(services, root)
    before = read_services(root)
    with pytest.raises(lifecycle.AlreadyUpError, match="run already"):
        _start(services, root)
    assert read_services(root) == before


def test_of_two_that_start_at_once_one_does_and_the_other_harms_nothing(
    root: str, fakes: Fakes
) -> None:
    services = fakes("one")

    def start(_: int) -> bool:
        try:
            return bool(_start(services, root))
        except (lifecycle.AlreadyUpError, ConfigError):
            return False  # it came second, or found the port taken by the first

    with ThreadPoolExecutor(3) as pool:
        assert any(pool.map(start, range(3)))
    assert [one.state for one in lifecycle.status(root)] == ["healthy"]
    assert len(_everything(root)) == 2 + 2


def test_a_service_that_is_killed_is_started_anew_and_the_restart_is_counted(
    root: str, fakes: Fakes
) -> None:
    _start(fakes("one", "two"), root)
    before = _service(root, "one")
    untouched = _service(root, "two")["pid"]
    left = descendants([_running_supervisor(root)])
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(
        lambda: (
            _service(root, "one")["restarts"] == 1 and _service(root, "one")["state"] == "healthy"
        ),
        seconds=SECONDS,
        what="started anew",
    )
    assert _service(root, "one")["pid"] != before["pid"]
    assert _service(root, "two")["pid"] == untouched
    # its orphan died with it, that of the other lives
    assert len(alive(left)) == len(left) - 2


def test_what_a_worker_started_goes_on_when_the_worker_is_started_anew_and_ends_with_down(
    root: str, fakes: Fakes
) -> None:
    (worker,) = fakes("worker")
    _start([replace(worker, children_survive=True)], root)
    pid = _service(root, "worker")["pid"]
    (flow,) = set(descendants([_running_supervisor(root)])) - {pid}
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: (
            _service(root, "worker")["restarts"] == 1
            and _service(root, "worker")["state"] == "healthy"
        ),
        seconds=SECONDS,
        what="started anew",
    )
    assert status_of(flow) is not None
    lifecycle.stop(root)
    assert status_of(flow) is None


def _running_supervisor(root: str) -> int:
    state = running_services(root)
    assert state is not None
    pid: int = state["supervisor"]["pid"]
    return pid


def test_a_service_that_answers_no_more_is_unhealthy_and_then_started_anew(
    root: str, fakes: Fakes, tmp_path: Path
) -> None:
    _start(fakes("one"), root)
    (tmp_path / "one" / "sick").touch()
    wait_until(
        lambda: _service(root, "one")["state"] == "unhealthy", seconds=SECONDS, what="unhealthy"
    )
    assert "HTTP 503" in lifecycle.status(root)[0].detail
    wait_until(lambda: _service(root, "one")["restarts"] == 1, seconds=SECONDS, what="restarted")
    (tmp_path / "one" / "sick").unlink()
    wait_until(lambda: _service(root, "one")["state"] == "healthy", seconds=SECONDS, what="well")


def test_a_service_that_fails_again_and_again_is_given_up_and_the_rest_goes_on(
    root: str, fakes: Fakes, tmp_path: Path
) -> None:
    _start(fakes("one", "two"), root)
    (tmp_path / "one" / "broken").touch()
    os.kill(_service(root, "one")["pid"], signal.SIGKILL)
    wait_until(lambda: _service(root, "one")["state"] == "failed", seconds=SECONDS, what="given up")
    assert "given up after 3 failures in a row" in _service(root, "one")["detail"]
    assert "the database is broken" in last_lines(_service(root, "one")["log"])
    assert _service(root, "two")["state"] == "healthy"


def test_when_one_cannot_start_its_last_words_are_shown_and_nothing_is_left_running(
    root: str, fakes: Fakes, tmp_path: Path
) -> None:
    services = fakes("one", "two")
    (tmp_path / "two" / "broken").touch()
    with pytest.raises(StepError, match=r"(?s)two ended with code 1.*the database is broken"):
        _start(services, root)
    assert lifecycle.status(root) == []
    assert lifecycle.left_behind(root) == {}


def test_a_port_that_is_taken_is_said_with_its_holder_and_nothing_is_started(
    root: str, fakes: Fakes
) -> None:
    services = fakes("one", "two")
    port = services[1].shown["port"]
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ConfigError) as refused:
            _start(services, root)
        assert f"port {port} of two is held by pid {os.getpid()}" in str(refused.value)
        assert "--port-base" in str(refused.value)
        assert lifecycle.status(root) == []
    assert _start(services, root)


def test_when_the_supervisor_is_killed_all_that_it_started_is_gone_soon(
    root: str, fakes: Fakes
) -> None:
    _start(fakes("one", "two"), root)
    found = _everything(root)
    os.kill(_running_supervisor(root), signal.SIGKILL)
    _wait_until_all_are_gone(found)
    assert [one.state for one in lifecycle.status(root)] == ["dead", "dead"]
    lifecycle.stop(root)
    assert lifecycle.status(root) == []


def test_when_the_guardian_is_killed_the_supervisor_ends_all_in_good_order(
    root: str, fakes: Fakes
) -> None:
    _start(fakes("one"), root)
    found = _everything(root)
    os.kill(next(iter(found)), signal.SIGKILL)  # it was started first
    _wait_until_all_are_gone(found)


def test_when_both_are_killed_at_once_down_finds_what_is_left(root: str, fakes: Fakes) -> None:
    _start(fakes("one"), root)
    found = _everything(root)
    supervisor = _running_supervisor(root)
    below = descendants([supervisor])
    wait_until(lambda: read_processes(root) == below, seconds=SECONDS, what="taken note of")
    for pid in (next(iter(found)), supervisor):  # the guardian first: it cannot act
        os.kill(pid, signal.SIGSTOP)
    for pid in (next(iter(found)), supervisor):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: running_services(root) is None, seconds=SECONDS, what="supervisor is gone")
    assert lifecycle.stop(root) >= 1  # the one that forgot where it came from
    assert alive(found) == {}


def test_what_a_dead_supervisor_left_is_cleared_away_by_the_next_start(
    root: str, fakes: Fakes
) -> None:
    services = fakes("one")
    _start(services, root)
    found = _everything(root)
    os.kill(_running_supervisor(root), signal.SIGKILL)
    wait_until(lambda: running_services(root) is None, seconds=SECONDS, what="supervisor is gone")
    _start(services, root)
    assert alive(found) == {}
    assert [one.state for one in lifecycle.status(root)] == ["healthy"]
