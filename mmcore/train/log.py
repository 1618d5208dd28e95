"""The lines of a training: what can be repeated, and the clock apart from it."""

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from mmcore import storage
from mmcore.core.lease import Fence
from mmcore.telemetry.event_file import EVENT_FILE_NAME, EventFile
from mmcore.train.meter import scalars_of

METRICS_NAME = "metrics.jsonl"
TIMING_NAME = "timing.jsonl"
LOG_NAMES = (METRICS_NAME, TIMING_NAME, EVENT_FILE_NAME)


class TrainingLog:
    """The lines of a run, written anew after each epoch so that others can watch; rank 0 only."""

    def __init__(self, output_url: str | None, fence: Fence | None) -> None:
        self._output_url = output_url
        self._fence = fence
        self._metrics: list[str] = []
        self._timing: list[str] = []
        self._events = EventFile(wall_time=time.time())

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
        return {
            METRICS_NAME: "".join(self._metrics).encode(),
            TIMING_NAME: "".join(self._timing).encode(),
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
        if self._output_url is not None:
            self.check_place()
            for name, data in self.files().items():
                storage.write(storage.join(self._output_url, name), data)


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), allow_nan=False) + "\n"
