"""What a dead driver leaves is killed; what a living one has is left alone."""

import os
import signal
import subprocess
import sys

import processes

from mmcore.core.process import Status
from mmcore.executors.reaper import Reaper, descendants

DRIVER = """
import subprocess, sys, time
from mmcore.executors.reaper import Reaper
reaper = Reaper()
forever = "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", forever], start_new_session=True, env={})
time.sleep(2)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_driver_started_is_gone_soon_though_it_never_looks_for_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip() == "ready"
        below = descendants(driver.pid)
        assert len(below) == 3  # the reaper, the child and its own child
        os.kill(driver.pid, signal.SIGKILL)
    processes.wait_until(
        lambda: not any(os.path.exists(f"/proc/{pid}") for pid in below),
        seconds=15,
        what="no process is left, the reaper included",
    )


def test_a_closed_reaper_is_gone_and_has_killed_nobody() -> None:
    reaper = Reaper()
    child = subprocess.Popen(["sleep", "600"])
    try:
        reaper.close()
        assert child.poll() is None
        assert [
            pid for pid in descendants(os.getpid()) if "reaper" in processes.command_of(pid)
        ] == []
    finally:
        child.kill()
        child.wait()


def test_a_look_that_asks_for_new_processes_alone_finds_what_a_whole_one_finds() -> None:
    seen: dict[int, Status] = {}
    before = descendants(os.getpid(), seen)
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            whole = descendants(os.getpid())
            assert descendants(os.getpid(), seen) == whole
            assert set(whole) - set(before) == {child.pid}
        finally:
            child.kill()
    assert child.pid not in descendants(os.getpid(), seen)
