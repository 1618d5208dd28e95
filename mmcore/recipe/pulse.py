"""The thread that keeps a run alive in the eyes of others, and that ends it when it is told to.

Once a second it looks whether somebody asks the run to stop; every few seconds it rewrites the
heartbeat and the beat of the lease. A run that is to stop has a moment to notice by itself, is then
interrupted wherever it is, and is killed with all that descends from it when nothing has helped.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from mmcore.core.cancel import StopSwitch
from mmcore.core.lease import BEAT_SECONDS, Lease
from mmcore.core.run_log import HEARTBEAT_SECONDS, RunLog
from mmcore.errors import LeaseLost, RunCancelled, StorageError
from mmcore.executors.reaper import kill_below

_LOOK_SECONDS = 1.0
_NOTICE_SECONDS = 2.0
"""After which a run that does not look is interrupted."""
_STUCK_SECONDS = 15.0
"""After which it is killed: a cancelled run is gone within 30 s, whatever it does."""

logger = logging.getLogger("mmcore.pulse")


class Pulse:
    """A daemon thread from `with` to its end."""

    def __init__(self, log: RunLog, stop: StopSwitch, *, on_stuck: Callable[[], None]) -> None:
        self.lease: Lease | None = None
        """Set once the run holds it."""
        self._log = log
        self._stop = stop
        self._on_stuck = on_stuck
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mm-pulse", daemon=True)

    def __enter__(self) -> "Pulse":
        self._log.beat()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join(timeout=_LOOK_SECONDS)

    def _run(self) -> None:
        beat_at = time.monotonic()
        thrown_at: float | None = None
        while not self._is_over.wait(_LOOK_SECONDS):
            now = time.monotonic()
            try:
                self._look()
                if now - beat_at >= min(BEAT_SECONDS, HEARTBEAT_SECONDS):
                    beat_at = now
                    self._beat()
            except StorageError as error:
                logger.warning("store_unreachable", extra={"error": str(error)})
            if self._stop.is_thrown:
                thrown_at = now if thrown_at is None else thrown_at
                self._press(now - thrown_at)

    def _look(self) -> None:
        if not self._stop.is_thrown and (request := self._log.cancel_request()) is not None:
            self._stop.throw(RunCancelled(request["by"], request["why"]))

    def _beat(self) -> None:
        if self.lease is not None:
            try:
                self.lease.beat()
            except LeaseLost as error:
                self._stop.throw(error)
        self._log.beat()

    def _press(self, seconds: float) -> None:
        if seconds >= _STUCK_SECONDS:
            logger.error("stuck", extra={"seconds": seconds})
            kill_below(os.getpid())
            self._on_stuck()
            os._exit(RunCancelled.exit_code)
        if seconds >= _NOTICE_SECONDS and (worker := self._stop.worker) is not None:
            self._stop.interrupt(worker)
