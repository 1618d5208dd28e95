"""A loader that kills, freezes or stops processes at given steps, and notes what each rank reads."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcore.core.loader import Batch, OpenLoader
from mmcore.core.step import Inputs
from mmcore.load.batches import MultimodalLoader
from mmcore.sample import Json

RANK, READER, PARENT, DRIVER = "rank", "reader", "parent", "driver"
KILL, FREEZE, STOP = int(signal.SIGKILL), int(signal.SIGSTOP), int(signal.SIGTERM)


@dataclass(frozen=True)
class Disturbance:
    """A signal that a rank sends, once, before it trains on the batch of a step."""

    step: int
    rank: int
    signal: int = KILL
    victim: str = RANK
    """Itself, its reader process, its parent (the driver, or the raylet of Ray), or the driver,
    whose number is in the file `driver`."""


@dataclass(frozen=True, kw_only=True)
class DisturbingLoader:
    """Reads as the loader inside does, and is it as far as identities go."""

    inner: MultimodalLoader
    directory: str
    """Where it notes what was read, and which disturbances there have been."""
    disturbances: tuple[Disturbance, ...] = ()
    pause: float = 0.0
    """Seconds before each batch."""

    def identity(self) -> Mapping[str, Json]:
        return self.inner.identity()

    def open(self, inputs: Inputs) -> OpenLoader:
        return _Open(self.inner.open(inputs), self)  # type: ignore[return-value]

    def keys_read(self) -> dict[int, list[str]]:
        """Return the global batch of each step, as the ranks that came furthest read it."""
        found: dict[int, dict[int, dict[int, list[str]]]] = {}
        for file in Path(self.directory).glob("read-*.json"):
            step, rank, num_ranks = map(int, file.stem.split("-")[1:])
            found.setdefault(step, {}).setdefault(num_ranks, {})[rank] = json.loads(
                file.read_text()
            )
        batches = {}
        for step, by_world in sorted(found.items()):
            whole = {
                tuple(key for rank in sorted(ranks) for key in ranks[rank])
                for num_ranks, ranks in by_world.items()
                if len(ranks) == num_ranks
            }
            assert len(whole) == 1, f"ranks of different worlds read other samples at step {step}"
            batches[step] = list(whole.pop())
        return batches


class _Open:
    def __init__(self, inner: OpenLoader, loader: DisturbingLoader) -> None:
        self._inner: Any = inner
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def epoch(self, split: str, **where: int) -> Iterator[Batch]:
        batch_size = where["global_batch_size"]
        num_steps = self._inner.num_steps(split, global_batch_size=batch_size)
        step = where["epoch"] * num_steps + where.get("first_step", 0)
        rank, num_ranks = where["rank"], where["num_ranks"]
        directory = Path(self._loader.directory)
        for batch in self._inner.epoch(split, **where):
            for number, one in enumerate(self._loader.disturbances):
                mark = directory / f"disturbed-{number}"
                if (one.step, one.rank) == (step, rank) and not mark.exists():
                    mark.touch()
                    os.kill(self._pid_of(one.victim), one.signal)
            (directory / f"read-{step}-{rank}-{num_ranks}.json").write_text(json.dumps(batch.keys))
            time.sleep(self._loader.pause)
            yield batch
            step += 1

    def _pid_of(self, victim: str) -> int:
        if victim == READER:
            assert self._inner.reader_pid is not None
            return self._inner.reader_pid
        if victim == DRIVER:
            return int(Path(self._loader.directory, "driver").read_text())
        return os.getppid() if victim == PARENT else os.getpid()
