"""Checkpoints as a training sees them: where to go on from, when to write one, when to stop.

All ranks decide together, by a few numbers that the engine gathers: one that waited for its disk
alone would let the others wait for it in the middle of a step.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from mmcore.core.manifest import MANIFEST_NAME, FileRecord
from mmcore.errors import IntegrityError, StorageError
from mmcore.sample import Json, sha256_hex
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.reading import Checkpoint
from mmcore.train.checkpoints.store import DIRECTORY, CheckpointId, CheckpointStore, Found
from mmcore.train.checkpoints.writer import CheckpointWriter, RankState, SharedState
from mmcore.train.engines import Engine, World

_LOOK_SECONDS = 0.1
_NONE = -1

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Verdict:
    """What the ranks have agreed on after a step."""

    save: bool
    stop: bool


class Checkpoints:
    """The checkpoints of one attempt at a training; every method is called on every rank."""

    def __init__(
        self,
        engine: Engine,
        world: World,
        store: CheckpointStore,
        config: CheckpointConfig,
        *,
        report: Report,
        should_stop: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._world = world
        self._store = store
        self._config = config
        self._report = report
        self._should_stop = should_stop
        self._attempt = self._told(store.begin_attempt(self._said()) if world.rank == 0 else 0)
        self._saved_step = 0
        self._saved_at = time.monotonic()
        self._is_reserved = False
        self._writer = CheckpointWriter(
            store,
            config,
            rank=world.rank,
            num_ranks=world.num_ranks,
            attempt=self._attempt,
            on_commit=self._say_committed,
        )

    def resume(self, *, seed: int) -> Checkpoint | None:
        """Put the engine where the newest checkpoint that verifies was; None when there is none.

        At the world size that wrote it, random generators go on too; at another they are seeded
        from `seed`, the step and the rank.
        """
        checkpoint = self._newest_sound()
        if checkpoint is None:
            if self._attempt > 1:
                self._say(f"attempt {self._attempt} finds no checkpoint and starts over")
            return None
        step = checkpoint.found.id.step
        rank, num_ranks = self._world.rank, self._world.num_ranks
        if checkpoint.found.num_ranks == num_ranks:
            scalars = checkpoint.rank_facts(rank)["scalars"]
            assert isinstance(scalars, dict), "written by `save`"
            self._engine.load_state(checkpoint.tensors(rank), scalars)
        else:
            scalars = checkpoint.rank_facts(0)["scalars"]
            assert isinstance(scalars, dict), "written by `save`"
            self._engine.load_full_state(checkpoint.read_slice, checkpoint.kinds(), scalars)
            torch.manual_seed((seed << 20) + (step << 8) + rank + 1)
        checkpoint.let_go()
        self._saved_step = step
        self._say(
            f"attempt {self._attempt} goes on from step {step} ({checkpoint.found.id.name}, "
            f"written by {checkpoint.found.num_ranks} ranks, now {num_ranks})"
        )
        return checkpoint

    def after_step(self, step: int) -> Verdict:
        """Return whether a checkpoint is due, and whether training is to stop after it."""
        if not self._is_reserved:
            self._writer.reserve(self._engine.named_state())  # moments come with the first step
            self._is_reserved = True
        seconds = 60 * self._config.every_minutes
        is_due = (0 < self._config.every_steps <= step - self._saved_step) or (
            0 < seconds <= time.monotonic() - self._saved_at and self._world.rank == 0
        )
        rows = self._gathered(int(is_due), int(self._writer.is_busy), int(self._should_stop()))
        is_due, is_busy, is_asked = (any(row[at] for row in rows) for at in range(3))
        return Verdict(save=is_asked or (is_due and not is_busy), stop=is_asked)

    def save(self, step: int, shared: SharedState) -> None:
        """Write a checkpoint in the background, unless this step has one already."""
        if step == self._saved_step:
            return
        while any(row[0] for row in self._gathered(int(self._writer.is_busy))):
            time.sleep(_LOOK_SECONDS)
        state = RankState(
            tensors=self._engine.named_state(),
            layout=self._engine.layout(),
            facts={"scalars": self._engine.scalars()},
        )
        self._writer.save(step, state, shared)
        self._saved_step = step
        self._saved_at = time.monotonic()

    def wait(self) -> None:
        """Wait until all that was begun is committed."""
        self._writer.wait()

    def best_files(self) -> list[FileRecord]:
        """Return the files of the checkpoints that stay when the model is there, as its own."""
        records: list[FileRecord] = []
        for found in self._store.best(self._config):
            about = found.manifest.to_json()
            own = FileRecord(MANIFEST_NAME, len(about), sha256_hex(about))
            below = f"{DIRECTORY}/{found.id.name}"
            files = (*found.manifest.files, own)
            records += [replace(one, path=f"{below}/{one.path}") for one in files]
        return records

    def close(self) -> None:
        """Let go of the threads."""
        self._writer.close()

    def _newest_sound(self) -> Checkpoint | None:
        candidates: list[Found] = []
        if self._world.rank == 0:
            candidates, problems = self._store.committed()
            for problem in problems:
                self._say(f"passed over a checkpoint: {problem}")
        while True:
            mine = candidates.pop(0).id if candidates else CheckpointId(_NONE, _NONE)
            wanted = CheckpointId(self._told(mine.step), self._told(mine.attempt))
            if wanted.step == _NONE:
                return None
            checkpoint, problems = self._opened(wanted)
            failed = [rank for rank, row in enumerate(self._gathered(len(problems))) if row[0]]
            if not failed and checkpoint is not None:
                return checkpoint
            if self._world.rank == 0:
                if checkpoint is not None and not problems:
                    problems = checkpoint.problems()
                found = "; ".join(problems) or f"rank {failed[0]} could not read it"
                self._say(f"passed over a damaged checkpoint: {found}")

    def _opened(self, wanted: CheckpointId) -> tuple[Checkpoint | None, list[str]]:
        try:
            found = self._store.load(wanted)
            if found is None:
                return None, [f"{wanted.name} is gone"]
            checkpoint = Checkpoint(found)
            share = {"rank": self._world.rank, "num_ranks": self._world.num_ranks}
            return checkpoint, checkpoint.problems(**share)
        except (IntegrityError, StorageError) as error:
            return None, [f"{wanted.name}: {error}"]

    def _told(self, value: int) -> int:
        """Return what the first rank says."""
        return self._gathered(value)[0][0]

    def _gathered(self, *values: int) -> list[list[int]]:
        """Return the numbers of all ranks."""
        own = torch.tensor([values], dtype=torch.int64, device=self._world.device)
        rows: list[list[int]] = self._engine.gather(own).tolist()
        return rows

    def _said(self) -> dict[str, Json]:
        return {"num_ranks": self._world.num_ranks}

    def _say(self, message: str) -> None:
        if self._world.rank == 0:
            self._report({"kind": "note", "message": message})

    def _say_committed(self, found: Found) -> None:
        step = found.id.step
        self._report({"kind": "checkpoint", "step": step, "name": found.id.name})
