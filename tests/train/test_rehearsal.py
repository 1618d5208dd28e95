"""The forecast of memory against the tensors of real engines."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shards import coloured_samples, write_inputs
from tiny_models import NUM_MELS, TINY_AUDIO, TINY_IMAGE, VOCAB_SIZE, random_batch, tiny_model
from torch import nn

from mmcore.core.step import Inputs
from mmcore.executors.local import LocalExecutor
from mmcore.load.batches import MultimodalLoader
from mmcore.models.config import ModelConfig, TextEncoderConfig
from mmcore.train.config import TrainConfig
from mmcore.train.memory import forecast_memory
from mmcore.train.rehearsal import _Kept, tensor_bytes
from mmcore.train.work import rehearse_rank

TEXT = TextEncoderConfig(
    options={
        "hidden_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "max_position_embeddings": 16,
    }
)
MODEL = ModelConfig(image=TINY_IMAGE, text=TEXT, audio=TINY_AUDIO, embedding_dim=8)
# a bucket that is no multiple of the weights: each thing that is held shows by itself
TRAIN = TrainConfig(global_batch_size=4, bucket_elements=600_000)
ASSUMED = {
    "num_labels": 3,
    "vocab_size": VOCAB_SIZE,
    "num_mels": NUM_MELS,
    "image_side": 32,
    "max_tokens": 8,
    "num_frames": 20,
}


def rehearsed(*, inputs: Inputs | None = None, **changes: Any) -> dict[str, Mapping[str, Any]]:
    """Take a step on a rank in a process of its own; return its reports by kind."""
    found: dict[str, Mapping[str, Any]] = {}
    config = {
        "model": MODEL,
        "train": replace(TRAIN, **changes),
        "loader": MultimodalLoader(image_side=32, num_mels=NUM_MELS, max_tokens=8, workers=0),
        "inputs": inputs,
        "assumed": ASSUMED,
        "num_steps": 1,
        "counts_tensors": True,
    }
    LocalExecutor().gang(
        rehearse_rank,
        config,
        num_ranks=1,
        on_report=lambda said: found.update({str(said["kind"]): said}),
    )
    return found


@pytest.mark.parametrize("stage", [0, pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_the_forecast_is_within_three_per_cent_of_the_tensors_of_an_engine(stage: int) -> None:
    said = rehearsed(zero_stage=stage)
    found = said["rehearsed"]
    memory = forecast_memory(
        replace(TRAIN, zero_stage=stage), num_trained=found["num_trained"], num_ranks=1
    )
    expected = memory.held + found["buffer_bytes"]
    assert found["tensor_bytes"] == pytest.approx(expected, rel=0.03)
    num_trained = sum(p.numel() for p in tiny_model(MODEL).parameters())
    assert said["counted"]["num_trained"] == found["num_trained"] == num_trained > 2_000_000
    assert not found["is_real"]


def test_real_batches_are_taken_where_the_dataset_is_and_frozen_weights_told_apart(
    tmp_path: Path,
) -> None:
    inputs = write_inputs(tmp_path, coloured_samples({"train": 9, "val": 3}, side=32))
    freeze = ("encoders.text.*",)
    said = rehearsed(inputs=inputs, engine="torch", freeze=freeze)["rehearsed"]
    assert said["is_real"]
    assert said["num_labels"] == 3
    assert said["num_frozen"] > said["num_trained"] > 0
    assert said["step_seconds"] > 0
    assert said["num_tokens"] > 0


def test_what_a_forward_pass_keeps_is_counted_without_the_weights() -> None:
    layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    with _Kept(list(layers.parameters()), is_on=True) as kept:
        layers(torch.ones(32, 64)).sum().backward()  # type: ignore[no-untyped-call]
    # the input, and what the ReLU gave, which it and the second layer both keep
    assert kept.num_bytes == 2 * 32 * 64 * 4
    half = kept.num_bytes // 2
    with _Kept(list(layers.parameters()), is_on=True) as kept:
        for _ in range(3):  # turns: what one has kept is gone when the next begins
            layers(torch.ones(16, 64)).sum().backward()  # type: ignore[no-untyped-call]
    assert kept.num_bytes == half


def test_a_storage_is_counted_once_however_many_tensors_look_at_it() -> None:
    before = tensor_bytes()
    whole = torch.zeros(1000, 1000)
    parts = [whole[:10], whole.T, whole.detach()]
    assert tensor_bytes() - before == 4_000_000
    assert len(parts) == 3
    assert random_batch(2).keys() >= {"image"}
