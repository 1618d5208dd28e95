"""The switch that stops a run: whoever waits sees it, whoever works is interrupted, once."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from mmcore.core.cancel import StopSwitch
from mmcore.errors import LeaseLost, RunCancelled


def test_a_switch_that_is_not_thrown_stops_nobody() -> None:
    stop = StopSwitch()
    stop.check()
    stop.wait(0.01)
    with stop.working():
        pass
    assert (stop.is_thrown, stop.error) == (False, None)


def test_the_first_reason_counts_and_is_raised_wherever_it_is_asked_for() -> None:
    stop = StopSwitch()
    stop.throw(RunCancelled("anna", "wrong corpus"))
    stop.throw(LeaseLost("too late"))
    for ask in (stop.check, lambda: stop.wait(60), lambda: stop.working().__enter__()):
        with pytest.raises(RunCancelled, match=r"cancelled by anna: wrong corpus\. What is done"):
            ask()


def test_whoever_waits_is_woken() -> None:
    stop = StopSwitch()
    threading.Timer(0.05, stop.throw, [RunCancelled("anna")]).start()
    with pytest.raises(RunCancelled):
        stop.wait(60)


def test_a_thread_that_works_without_looking_is_interrupted() -> None:
    stop = StopSwitch()
    ended: list[type[BaseException]] = []
    is_working = threading.Event()

    def work() -> None:
        try:
            with stop.working():
                is_working.set()
                while True:
                    time.sleep(0.001)
        except RunCancelled as error:
            ended.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert is_working.wait(10)
    stop.throw(RunCancelled("anna"))
    assert stop.worker is thread
    stop.interrupt(thread)
    thread.join(timeout=10)
    assert ended == [RunCancelled]


def test_a_thread_that_has_noticed_is_left_in_peace() -> None:
    stop = StopSwitch()
    stop.throw(RunCancelled("anna"))
    with pytest.raises(RunCancelled):
        stop.check()
    assert stop.is_delivered
    stop.interrupt(threading.current_thread())
    assert sum(range(1000)) == 499500  # an interrupt would have come by now


def test_the_main_thread_is_woken_out_of_a_system_call_and_sigterm_does_the_same() -> None:
    program = """
import signal, sys, threading, time
from mmcore.core.cancel import StopSwitch
from mmcore.errors import RunCancelled
stop = StopSwitch()
signal.signal(signal.SIGTERM, stop.on_signal)
main = threading.main_thread()
if sys.argv[1] == "interrupt":
    def throw():
        stop.throw(RunCancelled("anna"))
        stop.interrupt(main)
    threading.Timer(0.2, throw).start()
try:
    print("ready", flush=True)
    time.sleep(600)
except RunCancelled as error:
    print(error.by, flush=True)
signal.raise_signal(signal.SIGTERM)
print("a second one changes nothing", flush=True)
"""
    for how, by in (("interrupt", "anna"), ("signal", "SIGTERM")):
        with subprocess.Popen(
            [sys.executable, "-c", program, how], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            if how == "signal":
                child.send_signal(signal.SIGTERM)
            assert child.stdout.read() == f"{by}\na second one changes nothing\n"
        assert child.returncode == 0
