"""What a training says of itself while it runs: lines, curves and progress, at a bounded rate."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmcore.sample import Json
from mmcore.train.config import TrainConfig
from mmcore.train.log import TrainingLog
from mmcore.train.meter import Meter, resident_bytes, scalars_of

_TELL_STEPS = 10
_TELL_SECONDS = 2.0
"""Progress is told after so many steps, and where these are long after so many seconds."""
_FLUSH_SECONDS = 5.0
"""Between two writings of the curves: they are looked at while they grow."""
_FLUSH_SHARE = 500
"""And so many times as long as it took to gather them: long curves are written less often."""
_MEMORY_STEPS = 100
"""Between two questions to all ranks how much memory they have; they ask it of each other."""

Report = Callable[[Mapping[str, Any]], None]


class Teller:
    """Says how far a training has come: on rank 0 to whoever watches, on all ranks to the log."""

    def __init__(
        self,
        config: TrainConfig,
        log: TrainingLog,
        meter: Meter,
        report: Report,
        *,
        num_steps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._log = log
        self._meter = meter
        self._report = report
        self._num_steps = num_steps
        self._clock = clock
        self._told_at = self._flushed_at = clock()
        self._pause = _FLUSH_SECONDS

    def step(
        self,
        step: int,
        epoch: int,
        figures: Mapping[str, float],
        gather: Callable[[Tensor], Tensor],
    ) -> None:
        """Tell of a step, counted from 0; every rank has to, for the sake of `gather`."""
        at = {"step": step, "epoch": epoch}
        self._log.metrics({**at, **figures})
        window: dict[str, Any] | None = self._meter.window()
        if step % _MEMORY_STEPS == _TELL_STEPS - 1:
            own = torch.tensor([[resident_bytes()]], dtype=torch.int64)
            memory = gather(own.to(self._meter.device)).flatten().tolist()
            window = {**(window or {}), "memory_bytes": memory}
        if window:
            self._log.clock({**at, **window})
        now = self._clock()
        if (step + 1) % _TELL_STEPS == 0 or now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            said = f"loss {figures['loss']:.3f}, lr {figures['lr']:.2g}"
            self._progress(step + 1, epoch, said)
        if now - self._flushed_at >= self._pause:
            self._log.flush_aside()
            self._flushed_at = self._clock()
            self._pause = max(_FLUSH_SECONDS, _FLUSH_SHARE * (self._flushed_at - now))

    def epoch(
        self,
        step: int,
        epoch: int,
        figures: Mapping[str, float],
        held_out: Mapping[str, float],
        clock: Mapping[str, Any],
    ) -> None:
        """Tell of an epoch, validated; `step` is its last, with its figures."""
        at = {"step": step, "epoch": epoch}
        self._log.metrics({**at, **held_out})
        self._log.clock({**at, **clock})
        self._log.flush()
        metrics = _curves(figures, held_out, clock)
        self._report({"kind": "epoch", "epoch": epoch + 1, "step": step, "metrics": metrics})
        self._progress(step + 1, epoch, _brief(held_out))

    def _progress(self, done: int, epoch: int, said: str) -> None:
        message = self._meter.tell(f"epoch {epoch + 1}/{self._config.epochs}, {said}")
        progress: dict[str, Json] = {
            "kind": "progress",
            "done": done,
            "total": self._num_steps,
            "message": message,
        }
        self._report(progress)


def _curves(
    figures: Mapping[str, float], held_out: Mapping[str, float], clock: Mapping[str, Any]
) -> dict[str, float]:
    """Return what is told of an epoch: its last step, its validation and its clock."""
    own = {name: value for name, value in figures.items() if name not in ("lr", "samples")}
    named = {name if name == "grad_norm" else f"train_{name}": own[name] for name in own}
    found = {**named, "learning_rate": figures["lr"], **held_out, **scalars_of(clock)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _brief(validation: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in validation.items() if "_" in name)
