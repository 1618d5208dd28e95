import json
from pathlib import Path
from typing import Any

import pytest

from mmcore.errors import ConfigError
from mmcore.train.config import TrainConfig
from mmcore.train.deepspeed_config import deepspeed_config

CONFIGS = Path(__file__).parents[2] / "configs" / "deepspeed"
MADE_FOR: dict[str, tuple[int, dict[str, Any]]] = {
    "tiny_2xcpu": (2, {"zero_stage": 1}),
    "clip_b32_8xh100": (8, {"zero_stage": 2, "precision": "bf16"}),
    "large_1xrtx4090_24gb": (
        1,
        {"zero_stage": 3, "precision": "bf16", "offload_optimizer": True, "offload_param": True},
    ),
    "large_16xa100_40gb": (16, {"zero_stage": 3, "precision": "bf16"}),
    "clip_b32_4xv100_16gb": (4, {"zero_stage": 2, "precision": "fp16"}),
}


def written(tmp_path: Path, value: object) -> str:
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps(value))
    return str(file)


def test_deepspeed_gets_each_ranks_share_of_the_batch() -> None:
    found = deepspeed_config(TrainConfig(global_batch_size=96, zero_stage=2), num_ranks=4)
    assert found["train_batch_size"] == 96
    assert found["train_micro_batch_size_per_gpu"] == 24
    assert found["gradient_accumulation_steps"] == 1
    assert found["zero_optimization"]["stage"] == 2
    assert "offload_optimizer" not in found["zero_optimization"]


def test_what_a_rank_does_not_hold_at_once_is_accumulated() -> None:
    found = deepspeed_config(TrainConfig(global_batch_size=96, micro_batch_size=8), num_ranks=4)
    assert found["train_micro_batch_size_per_gpu"] == 8
    assert found["gradient_accumulation_steps"] == 3


def test_offload_moves_the_optimizer_and_the_weights_apart() -> None:
    config = TrainConfig(zero_stage=3, offload_param=True)
    zero = deepspeed_config(config, num_ranks=1, device_type="cuda")["zero_optimization"]
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert "offload_optimizer" not in zero
    config = TrainConfig(zero_stage=2, offload_optimizer=True)
    zero = deepspeed_config(config, num_ranks=1)["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert "offload_param" not in zero


def test_buckets_are_as_large_as_the_model_within_a_limit() -> None:
    for elements, expected in ((1001, 1002), (6_000_000, 6_000_000), (10**9, 50_000_000)):
        zero = deepspeed_config(TrainConfig(), num_ranks=1, num_elements=elements)[
            "zero_optimization"
        ]
        assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == expected
    config = TrainConfig(bucket_elements=400)
    zero = deepspeed_config(config, num_ranks=1, num_elements=10**6)["zero_optimization"]
    assert zero["reduce_bucket_size"] == 400


def test_one_rank_alone_leaves_gradients_and_linear_layers_as_they_are() -> None:
    for changes, num_ranks, is_gathered in (
        ({}, 1, False),
        ({}, 2, True),
        ({"precision": "bf16"}, 1, True),
        ({"offload_optimizer": True}, 1, True),
    ):
        config = TrainConfig(zero_stage=3, **changes)
        zero = deepspeed_config(config, num_ranks=num_ranks)["zero_optimization"]
        assert zero["contiguous_gradients"] is is_gathered, changes
        assert ("memory_efficient_linear" in zero) is (num_ranks == 1), changes


def test_communication_overlaps_between_gpus_alone() -> None:
    for device, num_ranks, overlaps in (("cpu", 2, False), ("cuda", 1, False), ("cuda", 2, True)):
        found = deepspeed_config(TrainConfig(), num_ranks=num_ranks, device_type=device)
        assert found["zero_optimization"]["overlap_comm"] is overlaps


def test_a_file_says_what_the_recipe_does_not(tmp_path: Path) -> None:
    theirs = {
        "train_batch_size": "auto",
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 1234},
        "optimizer": {"type": "AdamW", "params": {"lr": 2e-3, "betas": [0.9, 0.98]}},
        "scheduler": {"type": "WarmupCosineLR", "params": {}},
        "comms_logger": {"enabled": True},
    }
    config = TrainConfig(zero_stage=2, deepspeed_file=written(tmp_path, theirs))
    found = deepspeed_config(config, num_ranks=2)
    assert found["train_batch_size"] == 128
    assert found["zero_optimization"]["reduce_bucket_size"] == 1234
    assert found["zero_optimization"]["contiguous_gradients"] is True
    assert found["comms_logger"] == {"enabled": True}
    # ours are what is used: the two say the same
    assert "optimizer" not in found
    assert "scheduler" not in found


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"train_batch_size": 64}, "train_batch_size=64 and train.global_batch_size makes it 128"),
        (
            {"train_micro_batch_size_per_gpu": 8},
            "train_micro_batch_size_per_gpu=8 and train.micro_batch_size makes it 64",
        ),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps=4 and .* makes it 1"),
        ({"gradient_clipping": 0.5}, "gradient_clipping=0.5 and train.max_grad_norm makes it 1.0"),
        ({"bf16": {"enabled": True}}, "bf16.enabled=True and train.precision=fp32"),
        ({"fp16": {"enabled": True}}, "fp16.enabled=True and train.precision=fp32"),
        (
            {"zero_optimization": {"stage": 3}},
            "zero_optimization.stage=3 and train.zero_stage=1",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
            "offload_optimizer.device=nvme and train.offload_optimizer=false",
        ),
        ({"optimizer": {"type": "Lion"}}, "optimizer.type=Lion and train.optimizer=adamw"),
        (
            {"optimizer": {"params": {"lr": 0.1}}},
            "optimizer.params.lr=0.1 and train.learning_rate=0.002",
        ),
        (
            {"scheduler": {"type": "WarmupDecayLR"}},
            "scheduler.type=WarmupDecayLR and train.schedule=cosine",
        ),
    ],
)
def test_a_contradiction_names_both_values(
    tmp_path: Path, theirs: dict[str, object], message: str
) -> None:
    config = TrainConfig(deepspeed_file=written(tmp_path, theirs))
    with pytest.raises(ConfigError, match=rf"deepspeed.json contradicts the recipe: .*{message}"):
        deepspeed_config(config, num_ranks=2)


def test_all_contradictions_are_told_at_once(tmp_path: Path) -> None:
    theirs = {"train_batch_size": 64, "zero_optimization": {"stage": 0}}
    config = TrainConfig(deepspeed_file=written(tmp_path, theirs))
    with pytest.raises(ConfigError, match=r"train_batch_size=64 .*; zero_optimization.stage=0"):
        deepspeed_config(config, num_ranks=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no such file"), ("{", "is no JSON"), ("[]", "is a list. Use an object")],
)
def test_a_file_that_cannot_be_used_is_said_so(
    tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "deepspeed.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        deepspeed_config(TrainConfig(deepspeed_file=str(file)), num_ranks=1)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.json")), ids=lambda file: file.stem)
def test_each_configuration_of_ours_fits_what_it_was_made_for(file: Path) -> None:
    num_ranks, fields = MADE_FOR[file.stem]
    config = TrainConfig(deepspeed_file=str(file), global_batch_size=256, **fields)
    found = deepspeed_config(config, num_ranks=num_ranks, device_type="cuda")
    assert found["zero_optimization"]["stage"] == fields["zero_stage"]
    other = TrainConfig(deepspeed_file=str(file), zero_stage=0)
    with pytest.raises(ConfigError, match="contradicts"):
        deepspeed_config(other, num_ranks=1)
