"""In which numbers a model computes."""

from contextlib import nullcontext
from typing import Any

import torch

from mmcore.train.config import TrainConfig


def autocast(config: TrainConfig, device: torch.device) -> Any:
    """Return the context of a forward pass."""
    if config.precision != "bf16_autocast":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
