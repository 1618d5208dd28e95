"""How fast a training is, what it waits for and what it occupies: the clock, apart from results.

Nothing here changes a weight. A rank measures itself; now and then all ranks say what they found.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from resource import getpagesize
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmcore.core.loader import Batch
from mmcore.train.engines.world import World

_WINDOW_SECONDS = 1.0
"""Shorter windows say more of the clock than of the training."""
_PEAK_TFLOPS: Mapping[str, float] = {
    # dense products of bfloat16 (float16 where there is none), as the vendor's data sheets say
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
}


class Meter:
    """Measures the steps of this rank.

    >>> for batch in meter.waiting(batches):      # the time until a batch is there
    ...     with meter.step(batch):
    ...         train_on(batch)
    ...     window = meter.window()               # None until a second has passed
    """

    def __init__(
        self,
        world: World,
        *,
        global_batch_size: int,
        peak_flops: float | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`peak_flops` is what a GPU can do in a second at best; None leaves MFU out."""
        self._world = world
        self.device = world.device
        self._global_batch_size = global_batch_size
        self._clock = clock
        self._peak_flops = peak_flops
        self._flops_per_step: int | None = None
        self._epoch = _Sums(clock())
        self._window = _Sums(clock())
        self._last: Mapping[str, float] = {}

    def start_epoch(self) -> None:
        """Count from here: what came between two epochs is no part of either."""
        self._epoch = _Sums(self._clock())
        self._window = _Sums(self._clock())

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches, and count the time until each is there."""
        source = iter(batches)
        while True:
            asked = self._clock()
            batch = next(source, None)
            waited = self._clock() - asked
            for sums in (self._epoch, self._window):
                sums.waited += waited
            if batch is None:
                return
            yield batch

    @contextmanager
    def step(self, batch: Batch) -> Iterator[None]:
        """Count a step; the first one on a GPU also counts its operations."""
        if self._peak_flops is not None and self._flops_per_step is None:
            with FlopCounterMode(display=False) as counter:
                yield
            self._flops_per_step = counter.get_total_flops()
        else:
            yield
        num_tokens = tokens_of(batch)
        for sums in (self._epoch, self._window):
            sums.num_steps += 1
            sums.num_tokens += num_tokens

    def window(self) -> dict[str, float] | None:
        """Return the figures of the last second or more; None while it has not passed.

        Tokens are those of this rank times the number of ranks.
        """
        now = self._clock()
        if now - self._window.since < _WINDOW_SECONDS or not self._window.num_steps:
            return None
        window, self._window = self._window, _Sums(now)
        seconds = now - window.since
        self._last = self._rates(
            window, seconds, num_tokens=window.num_tokens * self._world.num_ranks
        )
        return {**self._last, "memory_bytes": resident_bytes(), **self._gpu_memory()}

    def epoch(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return the figures of the epoch over all ranks; every rank has to ask.

        `data_stall` is that of the rank that waited longest; memory is a list, by rank.
        """
        seconds = self._clock() - self._epoch.since
        own = [self._epoch.waited, self._epoch.num_tokens, resident_bytes()]
        own += self._gpu_memory().values()
        rows = gather(torch.tensor([own], dtype=torch.float64, device=self.device)).tolist()
        slowest = _Sums(self._epoch.since)
        slowest.num_steps, slowest.waited = self._epoch.num_steps, max(row[0] for row in rows)
        found: dict[str, Any] = self._rates(
            slowest, seconds, num_tokens=sum(row[1] for row in rows)
        )
        found["wait_seconds"] = round(slowest.waited, 3)
        for column, name in enumerate(["memory_bytes", *self._gpu_memory()], start=2):
            found[name] = [int(row[column]) for row in rows]
        return found

    def tell(self, message: str) -> str:
        """Return a line of progress with the newest figures, once there are any."""
        if not self._last:
            return message
        rate, stall = self._last["samples_per_second"], self._last["data_stall"]
        return f"{message}, {rate:.0f} samples/s, {stall:.0%} waiting for data"

    def _rates(self, sums: "_Sums", seconds: float, *, num_tokens: float) -> dict[str, float]:
        seconds = max(seconds, 1e-9)
        num_samples = sums.num_steps * self._global_batch_size
        found = {
            "samples_per_second": round(num_samples / seconds, 2),
            "tokens_per_second": round(num_tokens / seconds, 2),
            "data_stall": round(min(1.0, sums.waited / seconds), 4),
            "step_seconds": round(seconds / max(1, sums.num_steps), 6),
        }
        if self._flops_per_step is not None and self._peak_flops is not None:
            done = self._flops_per_step * sums.num_steps / seconds
            found["mfu"] = round(done / self._peak_flops, 4)
        return found

    def _gpu_memory(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {}
        return {"gpu_memory_bytes": torch.cuda.max_memory_allocated(self.device)}


class _Sums:
    """What has been counted since a moment."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.waited = 0.0
        self.num_steps = 0
        self.num_tokens = 0.0


def tokens_of(batch: Batch) -> int:
    """Return the text tokens of a batch, padding left out."""
    mask = batch.arrays.get("text_mask")
    return 0 if mask is None else int(mask.sum())


def peak_flops(device: torch.device) -> float | None:
    """Return what a GPU can do in a second at best; None for a CPU, or a GPU not known here."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """Return the operations per second of a GPU by its name; None when it is not known here."""
    known = (tera for part, tera in _PEAK_TFLOPS.items() if re.search(rf"\b{part}\b", name))
    tera = next(known, None)
    return None if tera is None else tera * 1e12


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def scalars_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return figures as one number each: of a list by rank, the highest."""
    return {
        name: float(max(value) if isinstance(value, list) else value)
        for name, value in figures.items()
    }
