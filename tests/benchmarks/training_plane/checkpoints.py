"""A checkpoint: what it costs a step, and how long until it is durable; against bare work.

The stall is all that the training thread spends on `CheckpointWriter.save`: laying out, copying,
handing over; bare is one copy of as many bytes into memory that was used before. Durable is from
`save` to the end of `wait`: the tensors and their record written and synced, hashed, the manifest
committed, the old ones swept; bare is `dd conv=fsync` of as many bytes, and `torch.save` with an
fsync behind it is what people use. The tensors are as many as those of a model with two moments.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from figures import Against, Row, row
from torch import Tensor
from turns import Taken, in_turns, interval

from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.reading import Checkpoint
from mmcore.train.checkpoints.store import CheckpointStore
from mmcore.train.checkpoints.writer import CheckpointWriter, RankState, SharedState

_DD_BLOCK = "8M"


def figures(num_bytes: int, *, directory: str | None = None, place: str = "disk") -> list[Row]:
    """Return rows for a checkpoint of about so many bytes, on a disk or wherever else."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        bench = _Checkpoint(Path(scratch), num_bytes)
        try:
            print(f" checkpoint on {place}: stall", file=sys.stderr)
            stall = in_turns({"bare": bench.copy, "ours": bench.stall}, steady="bare")
            print(f" checkpoint on {place}: durable", file=sys.stderr)
            arms: dict[str, Callable[[], float]] = {
                "bare": bench.dd, "ours": bench.durable, "torch.save": bench.torch_save,
            }  # fmt: skip
            durable = in_turns(arms, steady="bare")
        finally:
            bench.close()
    megabytes = bench.num_bytes / 1e6

    def of(what: str, ours: Taken, reference: Taken, goal: float, against: Against = "bare") -> Row:
        return row(f"{what}, {megabytes:.0f} MB on {place}", ours.median, reference.median,
                   goal=goal, better="lower", value=ours.median / reference.median, against=against,
                   note=f"1 / {interval(ours, reference)}")  # fmt: skip

    return [
        of("checkpoint stall / one memcpy, s", stall["ours"], stall["bare"], 1.5),
        of("durable checkpoint / dd conv=fsync, s", durable["ours"], durable["bare"], 1.25),
        of("durable checkpoint / torch.save and fsync, s", durable["ours"], durable["torch.save"],
           1 / 3, "peer"),
    ]  # fmt: skip


class _Checkpoint:
    """The same tensors, kept in several ways."""

    def __init__(self, directory: Path, num_bytes: int) -> None:
        torch.set_num_threads(1)
        self._directory = directory
        self.tensors = _tensors(num_bytes)
        self.num_bytes = sum(one.numel() * one.element_size() for one in self.tensors.values())
        self._flat = torch.cat([one.view(-1) for one in self.tensors.values()])
        self._target = torch.zeros_like(self._flat)
        store = CheckpointStore(str(directory / "ours"), fingerprint="f" * 64)
        self._store = store
        attempt = store.begin_attempt({})
        self._writer = CheckpointWriter(
            store, CheckpointConfig(), rank=0, num_ranks=1, attempt=attempt
        )
        self._writer.reserve(self.tensors)
        layout = {"is_shared": True, "kinds": ["master"], "partitions": {}}
        self._state = RankState(tensors=self.tensors, layout=layout)  # type: ignore[arg-type]
        self._step = 0
        self._plain = directory / "plain"
        with open(self._plain, "wb") as file:
            file.write(self._flat.numpy().tobytes())

    def copy(self) -> float:
        started = time.perf_counter()
        self._target.copy_(self._flat)
        return time.perf_counter() - started

    def stall(self) -> float:
        self._step += 1
        started = time.perf_counter()
        self._writer.save(self._step, self._state, SharedState())
        spent = time.perf_counter() - started
        self._writer.wait()
        return spent

    def durable(self) -> float:
        self._step += 1
        started = time.perf_counter()
        self._writer.save(self._step, self._state, SharedState())
        self._writer.wait()
        spent = time.perf_counter() - started
        found = self._store.committed()[0][0]
        assert found.id.step == self._step
        if self._step % 4 == 0:
            assert Checkpoint(found).problems() == []
        return spent

    def dd(self) -> float:
        target = self._directory / "dd"
        target.unlink(missing_ok=True)
        command = ["dd", f"if={self._plain}", f"of={target}", f"bs={_DD_BLOCK}", "conv=fsync"]
        started = time.perf_counter()
        subprocess.run([*command, "status=none"], check=True)
        spent = time.perf_counter() - started
        assert target.stat().st_size == self.num_bytes
        return spent

    def torch_save(self) -> float:
        target = self._directory / "torch"
        target.unlink(missing_ok=True)
        started = time.perf_counter()
        with open(target, "wb") as file:
            torch.save(self.tensors, file)
            file.flush()
            os.fsync(file.fileno())
        spent = time.perf_counter() - started
        assert target.stat().st_size >= self.num_bytes
        return spent

    def close(self) -> None:
        self._writer.close()
        shutil.rmtree(self._directory / "ours", ignore_errors=True)


def _tensors(num_bytes: int) -> dict[str, Tensor]:
    """Return three flat partitions, as ZeRO keeps them, and a hundred small buffers."""
    generator = torch.Generator().manual_seed(0)
    each = num_bytes // 12
    kinds = ("master", "exp_avg", "exp_avg_sq")
    tensors = {f"{kind}/0": torch.randn(each, generator=generator) for kind in kinds}
    return tensors | {f"buffer/{n}": torch.randn(64, generator=generator) for n in range(100)}
