"""Processes: told apart from later ones of the same number, and ended for good."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import processes as observed
import pytest
from processes import wait_until

from mmcore.core.process import status_of
from mmcore.operate import processes

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def tree() -> Iterator["subprocess.Popen[str]"]:
    """A process that does not listen, with a child."""
    environment = os.environ | {"MM_SERVICES_OF": "/a root"}
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    observed.kill([*observed.children(process.pid), process.pid])
    process.wait()
    process.stdout.close()


def test_descendants_are_found_and_a_process_is_not_its_own(tree: "subprocess.Popen[str]") -> None:
    found = processes.descendants([tree.pid])
    assert set(found) == observed.children(tree.pid)
    assert len(found) == 1
    assert tree.pid in processes.descendants([os.getpid()])


def test_processes_are_found_by_a_whole_entry_of_their_environment(
    tree: "subprocess.Popen[str]",
) -> None:
    found = processes.with_environment("MM_SERVICES_OF=/a root")
    assert set(found) == {tree.pid} | observed.children(tree.pid)
    assert processes.with_environment("MM_SERVICES_OF=/a") == {}


def test_kill_ends_those_that_do_not_listen_and_all_below_them(
    tree: "subprocess.Popen[str]",
) -> None:
    below = processes.descendants([tree.pid])
    status = status_of(tree.pid)
    assert status is not None
    assert processes.kill({tree.pid: status.started}) == {}
    assert processes.alive(below) == {}


def test_a_later_process_of_the_same_number_is_spared(tree: "subprocess.Popen[str]") -> None:
    assert processes.kill({tree.pid: 1}) == {}
    processes.send({tree.pid: 1}, signal.SIGKILL)
    assert tree.poll() is None


def test_what_is_adopted_can_be_ended_whatever_it_did_to_get_away() -> None:
    script = """
import os, subprocess, sys
from mmcore.operate import processes
processes.adopt_orphans()
away = "import subprocess; print(subprocess.Popen(['sleep', '600'], env={}, stdout=-3, stderr=-3, start_new_session=True).pid)"
pid = int(subprocess.run([sys.executable, "-c", away], capture_output=True, text=True).stdout)
assert pid in processes.descendants([os.getpid()])
processes.kill_children()
print(pid)
"""
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    pid = int(said.stdout)
    wait_until(lambda: status_of(pid) is None, seconds=10, what="it is gone")
