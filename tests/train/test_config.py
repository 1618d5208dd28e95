import subprocess
import sys

import pytest

from mmcore.errors import ConfigError
from mmcore.train.config import TrainConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, r"train.epochs=0. Use 1 or more"),
        ({"global_batch_size": 0}, r"train.global_batch_size=0"),
        ({"learning_rate": 0.0}, r"train.learning_rate=0.0"),
        ({"warmup_fraction": 1.0}, r"train.warmup_fraction=1.0"),
        ({"weight_decay": -0.1}, r"train.weight_decay=-0.1"),
        ({"engine": "torch", "precision": "bf16"}, r"no float32 copy .* engine: deepspeed"),
        ({"engine": "torch", "precision": "fp16"}, r"no float32 copy of fp16"),
        ({"engine": "torch", "deepspeed_file": "a.json"}, r"deepspeed_file=a.json .* deepspeed"),
        ({"engine": "torch", "offload_optimizer": True}, r"offload_optimizer needs ZeRO"),
        ({"zero_stage": 0, "offload_optimizer": True}, r"offload_optimizer needs ZeRO"),
        ({"zero_stage": 2, "offload_param": True}, r"offload_param needs ZeRO 3"),
        ({"micro_batch_size": -1}, r"train.micro_batch_size=-1. Use 0 or more"),
        ({"ema_decay": 1.0}, r"train.ema_decay=1.0"),
        ({"schedule": "one_cycle", "warmup_fraction": 0.0}, r"one_cycle rises first"),
        ({"drop_at": (0.7, 0.2)}, r"train.drop_at=\[0.7, 0.2\]. Use rising"),
        ({"drop_factor": 1.0}, r"train.drop_factor=1.0"),
    ],
)
def test_what_cannot_work_is_refused_with_a_way_out(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**fields)  # type: ignore[arg-type]


def test_a_batch_that_ranks_cannot_share_names_one_that_they_can() -> None:
    config = TrainConfig(global_batch_size=100)
    config.check_ranks(4)
    with pytest.raises(ConfigError, match=r"=100 is not divisible by 3 ranks\. .* example 102"):
        config.check_ranks(3)


def test_the_torch_engine_is_for_one_rank() -> None:
    with pytest.raises(ConfigError, match="engine=torch runs in one process and num_ranks=2"):
        TrainConfig(engine="torch").check_ranks(2)


def test_a_plan_needs_no_torch_and_no_mlflow() -> None:
    code = (
        "import sys, mmcore.train.work, mmcore.load.batches; "
        "print([m for m in ('torch', 'deepspeed', 'mlflow', 'ray') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
