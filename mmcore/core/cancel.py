"""How a run is told to stop: one switch that everything which waits looks at."""

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmcore.errors import MmError, RunCancelled

_LOOK_SECONDS = 0.05


class StopSwitch:
    """Tells a run to stop, once, and why; whoever works or waits for it asks `check()`.

    The error that ends the run is raised once: by the first `check()`, or from outside into the
    thread that works and does not look (`interrupt()`), so that cleaning up is not disturbed.
    """

    def __init__(self) -> None:
        self._is_thrown = threading.Event()
        self._lock = threading.Lock()
        self._is_delivered = False
        self._error: MmError | None = None
        self.worker: threading.Thread | None = None
        """The thread that does the run's work now; None while nobody does."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Make this thread the one that is interrupted when the run is told to stop."""
        self.check()
        before, self.worker = self.worker, threading.current_thread()
        try:
            yield
        finally:
            self.worker = before

    def wind_down(self) -> None:
        """Wait until a thread that works for the run has noticed; leave this one in peace.

        The pulse of the run interrupts whoever does not look, and ends what cannot be interrupted.
        """
        if self.worker in (None, threading.current_thread()):
            self._is_delivered = True
        while (worker := self.worker) is not None and worker is not threading.current_thread():
            if not worker.is_alive():
                return
            time.sleep(_LOOK_SECONDS)

    @property
    def error(self) -> MmError | None:
        """What ends the run; None while it may go on."""
        return self._error

    @property
    def is_thrown(self) -> bool:
        """Return whether the run has been told to stop."""
        return self._is_thrown.is_set()

    @property
    def is_delivered(self) -> bool:
        """Return whether the run has noticed."""
        return self._is_delivered

    def throw(self, error: MmError) -> None:
        """Tell the run to stop; the first reason counts."""
        with self._lock:
            if self._error is None:
                self._error = error
                self._is_thrown.set()

    def check(self) -> None:
        """Raise what ends the run, if it has been told to stop."""
        if self._is_thrown.is_set():
            self._is_delivered = True
            assert self._error is not None
            raise self._error

    def wait(self, seconds: float) -> None:
        """Sleep, but not for longer than the run may go on; then `check()`."""
        self._is_thrown.wait(seconds)
        self.check()

    def on_signal(self, number: int, _: Any) -> None:
        """Handle SIGTERM in the main thread: stop, and wake what works or waits there."""
        self.throw(RunCancelled(signal.Signals(number).name, "the process was told to end"))
        if not self._is_delivered:
            self.check()

    def interrupt(self, thread: threading.Thread) -> None:
        """Raise the error in a thread that works without looking, unless it has noticed."""
        if self._is_delivered or thread.ident is None or not thread.is_alive():
            return
        if thread is threading.main_thread() and signal.getsignal(signal.SIGTERM) == self.on_signal:
            signal.pthread_kill(thread.ident, signal.SIGTERM)  # wakes it out of a system call
            return
        self._is_delivered = True
        error = type(self._error) if self._error is not None else RunCancelled
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(error)
        )
