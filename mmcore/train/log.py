"""The lines of a training: what can be repeated, and the clock apart from it."""

import json
import math
from collections.abc import Mapping

from mmcore import storage
from mmcore.core.lease import Fence

METRICS_NAME = "metrics.jsonl"
TIMING_NAME = "timing.jsonl"


class TrainingLog:
    """The lines of a run, written anew after each epoch so that others can watch; rank 0 only."""

    def __init__(self, output_url: str | None, fence: Fence | None) -> None:
        self._output_url = output_url
        self._fence = fence
        self._metrics: list[str] = []
        self._timing: list[str] = []

    def metrics(self, values: Mapping[str, float]) -> None:
        """Add a line; values that are not numbers are left out."""
        self._metrics.append(_line({k: v for k, v in values.items() if math.isfinite(v)}))

    def timing(self, epoch: int, step: int, train_seconds: float, validate_seconds: float) -> None:
        """Add a line of the clock."""
        seconds = {"train_seconds": train_seconds, "validate_seconds": validate_seconds}
        rounded = {name: round(value, 3) for name, value in seconds.items()}
        self._timing.append(_line({"epoch": epoch, "step": step - 1, **rounded}))

    def go_on_from(self, files: Mapping[str, bytes]) -> None:
        """Begin with the lines that a checkpoint holds."""
        self._metrics = [files[METRICS_NAME].decode()]
        self._timing = [files[TIMING_NAME].decode()]

    def files(self) -> dict[str, bytes]:
        """Return the files by name."""
        return {
            METRICS_NAME: "".join(self._metrics).encode(),
            TIMING_NAME: "".join(self._timing).encode(),
        }

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


def _line(values: Mapping[str, float]) -> str:
    return json.dumps(dict(values), allow_nan=False) + "\n"
