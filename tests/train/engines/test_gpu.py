"""What only a GPU can show: NCCL, fused optimizers, half precision, pinned memory, overlap."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import TINY_MODEL, random_batch, tiny_model

from mmcore.core.loader import Batch
from mmcore.executors.local import LocalExecutor
from mmcore.sample import Json
from mmcore.train.config import TrainConfig
from mmcore.train.engines import World, build_engine
from mmcore.train.loop import to_tensors
from mmcore.train.turns import accumulate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
MODEL = replace(TINY_MODEL, image=None, audio=None)
CONFIG = TrainConfig(global_batch_size=8)


def losses_fall(config: Mapping[str, Any]) -> Json:
    """What each rank does: train on one batch; its loss has to fall."""
    world = World.from_environment()
    for train in config["cases"]:
        engine = build_engine(tiny_model(MODEL), train, world)
        rows = slice(world.rank * 8 // world.num_ranks, (world.rank + 1) * 8 // world.num_ranks)
        own = {k: v[rows].to(world.device) for k, v in random_batch(8).items()}
        losses = []
        for _ in range(20):
            losses.append(accumulate(engine, MODEL, train, world, own)["loss"])
            engine.step(0.01)
        engine.close()
        assert losses[-1] < losses[0], train
    return None


def run(num_ranks: int, *cases: TrainConfig) -> None:
    LocalExecutor(num_workers=num_ranks).gang(
        losses_fall, {"cases": cases}, num_ranks=num_ranks, on_report=lambda _: None
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_autocast", "fp16"])
def test_every_precision_learns_at_every_stage(precision: str) -> None:
    run(1, *(replace(CONFIG, precision=precision, zero_stage=s) for s in range(4)))  # type: ignore


def test_weights_and_optimizer_wait_in_pinned_memory() -> None:
    run(1, replace(CONFIG, zero_stage=3, offload_optimizer=True, offload_param=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs here")
def test_two_gpus_speak_through_nccl_while_they_compute() -> None:
    run(2, *(replace(CONFIG, zero_stage=stage) for stage in range(4)))  # type: ignore[arg-type]


def test_batches_go_to_the_gpu_by_pinned_memory() -> None:
    batch = Batch(keys=("a",), arrays={"label": np.arange(3)})
    found = to_tensors(batch, torch.device("cuda", 0))
    assert found["label"].tolist() == [0, 1, 2]
    assert found["label"].device.type == "cuda"
