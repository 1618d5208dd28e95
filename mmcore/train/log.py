"""The lines of a training: what can be repeated, and the clock apart from it."""

import json
import math
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mmcore import storage
from mmcore.core.lease import Fence
from mmcore.telemetry.event_file import EVENT_FILE_NAME, EventFile
from mmcore.train.meter import scalars_of

METRICS_NAME = "metrics.jsonl"
TIMING_NAME = "timing.jsonl"
LOG_NAMES = (METRICS_NAME, TIMING_NAME, EVENT_FILE_NAME)


class TrainingLog:
    """The lines of a run, written anew now and then so that others can watch; rank 0 only."""

    def __init__(self, output_url: str | None, fence: Fence | None) -> None:
        self._output_url = output_url
        self._fence = fence
        self._metrics: list[str] = []
        self._timing: list[str] = []
        self._events = EventFile(wall_time=time.time())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="curves")
        self._writing: Future[None] | None = None

    def metrics(self, values: Mapping[str, float]) -> None:
        """Add a line; values that are not numbers are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._metrics.append(_line(finite))
        self._event("", finite)

    def clock(self, values: Mapping[str, Any]) -> None:
        """Add a line of the clock."""
        self._timing.append(_line(values))
        self._event("clock/", scalars_of(values))

    def go_on_from(self, files: Mapping[str, bytes]) -> None:
        """Begin with the lines that a checkpoint holds."""
        self._metrics = [files[METRICS_NAME].decode()]
        self._timing = [files[TIMING_NAME].decode()]
        self._events.data = bytearray(files[EVENT_FILE_NAME])

    def files(self) -> dict[str, bytes]:
        """Return the files by name."""
        # what was joined once is not joined again line by line
        self._metrics, self._timing = ["".join(self._metrics)], ["".join(self._timing)]
        return {
            METRICS_NAME: self._metrics[0].encode(),
            TIMING_NAME: self._timing[0].encode(),
            EVENT_FILE_NAME: bytes(self._events.data),
        }

    def _event(self, prefix: str, values: Mapping[str, float]) -> None:
        scalars = {f"{prefix}{k}": v for k, v in values.items() if k not in ("step", "epoch")}
        self._events.scalars(scalars, step=int(values["step"]), wall_time=time.time())

    def check_place(self) -> None:
        """Raise LeaseLost when another run trains in this one's place by now."""
        if self._fence is not None:
            self._fence.check()

    def flush(self) -> None:
        """Write what there is."""
        self.wait()
        if self._output_url is not None:
            self._write(self._output_url, self.files())

    def flush_aside(self) -> None:
        """Write what there is while training goes on, unless the last writing is under way."""
        if self._output_url is None or (self._writing is not None and not self._writing.done()):
            return
        self.wait()
        self._writing = self._thread.submit(self._write, self._output_url, self.files())

    def wait(self) -> None:
        """Wait for what is being written aside, and raise what went wrong with it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Let go of the thread that writes aside."""
        self._thread.shutdown(wait=True)

    def _write(self, url: str, files: Mapping[str, bytes]) -> None:
        self.check_place()
        for name, data in files.items():
            storage.write(storage.join(url, name), data)


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), allow_nan=False) + "\n"
