"""What is told of a training while it runs, and how often."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcore.train.config import TrainConfig
from mmcore.train.engines import World
from mmcore.train.log import TrainingLog
from mmcore.train.meter import Meter
from mmcore.train.telling import Teller

FIGURES = {"loss": 1.25, "class_text": 1.0, "lr": 0.001, "grad_norm": 2.0, "samples": 8.0}


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def two_ranks(own: Tensor) -> Tensor:
    return torch.cat([own, own + 1])


def teller(log: TrainingLog, clock: Clock) -> tuple[Teller, list[Any]]:
    said: list[Any] = []
    config = TrainConfig(epochs=2)
    meter = Meter(World(0, 2, 0), global_batch_size=8, peak_flops=None, clock=clock)
    return Teller(config, log, meter, said.append, num_steps=400, clock=clock), said


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_curves_are_written_in_the_middle_of_an_epoch_and_not_with_every_step(
    tmp_path: Path,
) -> None:
    clock = Clock()
    log = TrainingLog(str(tmp_path), None)
    telling, _ = teller(log, clock)
    for step in range(4):
        telling.step(step, 0, FIGURES, two_ranks)
    log.wait()
    assert not (tmp_path / "metrics.jsonl").exists()
    clock.now += 5.0
    telling.step(4, 0, FIGURES, two_ranks)
    log.wait()
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    telling.step(5, 0, FIGURES, two_ranks)
    log.wait()
    assert len(lines(tmp_path / "metrics.jsonl")) == 5
    clock.now += 5.0
    telling.step(6, 0, FIGURES, two_ranks)
    log.wait()
    assert lines(tmp_path / "metrics.jsonl")[-1] == {"step": 6, "epoch": 0, **FIGURES}
    log.close()


def test_progress_is_told_every_ten_steps_or_two_seconds() -> None:
    clock = Clock()
    telling, said = teller(TrainingLog(None, None), clock)
    for step in range(25):
        telling.step(step, 0, FIGURES, two_ranks)
    assert [one["done"] for one in said] == [10, 20]
    for step in (25, 26):
        clock.now += 2.0
        telling.step(step, 0, FIGURES, two_ranks)
    assert [one["done"] for one in said] == [10, 20, 26, 27]
    assert said[0]["message"].startswith("epoch 1/2, loss 1.250, lr 0.001")
    assert said[0]["total"] == 400


def test_the_memory_of_every_rank_is_told_within_an_epoch() -> None:
    log = TrainingLog(None, None)
    telling, _ = teller(log, Clock())
    for step in range(120):
        telling.step(step, 0, FIGURES, two_ranks)
    timing = [json.loads(line) for line in log.files()["timing.jsonl"].splitlines()]
    assert [line["step"] for line in timing] == [9, 109]
    first, second = timing[0]["memory_bytes"]
    assert second == first + 1 > 1
