"""A value that takes long to read, read in the background: a page shows what is known already."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmcore.errors import MmError

Value = TypeVar("Value")
_TOO_OLD = 6.0
"""Times `max_age_seconds`: nobody has asked for so long that what is known may mislead."""


@dataclass(frozen=True)
class Known(Generic[Value]):
    """What is known of a value now."""

    value: Value | None
    """The last that could be read; None before the first."""
    error: str
    """Why the last attempt failed; empty when it did not."""
    is_loading: bool
    """Whether nothing is known yet and the first read is under way."""


class Refreshed(Generic[Value]):
    """Reads a value again when it is asked for and older than `max_age_seconds`."""

    def __init__(self, load: Callable[[], Value], max_age_seconds: float) -> None:
        self._load = load
        self._max_age = max_age_seconds
        self._lock = threading.Lock()
        self._finished = threading.Condition(self._lock)
        self._value: Value | None = None
        self._error = ""
        self._loaded_at = 0.0
        self._is_running = False
        self._num_asked = self._num_done = 0

    def get(self, wait_seconds: float = 0.0) -> Known[Value]:
        """Return what is known, after at most `wait_seconds` if nothing is, or nothing of now."""
        now = time.monotonic()
        with self._lock:
            before = self._loaded_at
            age = now - before if before else math.inf
            if age > self._max_age:
                self._start()
            while age > _TOO_OLD * self._max_age and self._loaded_at == before:
                left = now + wait_seconds - time.monotonic()
                if left <= 0:
                    break
                self._finished.wait(left)
            return Known(self._value, self._error, not self._loaded_at and self._value is None)

    def drop(self) -> None:
        """Forget that the value is fresh: the next `get` waits for a new one."""
        with self._lock:
            self._num_asked += 1
            self._loaded_at = 0.0

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            threading.Thread(target=self._run, name="refresh", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                asked = self._num_asked
            value, error = None, ""
            try:
                value = self._load()
            except MmError as problem:
                error = str(problem)
            except BaseException:
                with self._lock:
                    self._error = "Reading it failed. The dashboard's log has the details."
                    self._is_running = False
                    self._loaded_at = time.monotonic()
                    self._finished.notify_all()
                raise
            with self._lock:
                if not error:
                    self._value = value
                self._error = error
                if asked == self._num_asked:
                    self._loaded_at = time.monotonic()
                    self._is_running = False
                    self._finished.notify_all()
                    return
