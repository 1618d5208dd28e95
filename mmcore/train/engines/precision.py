"""In which numbers a model computes."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from mmcore.train.config import TrainConfig


def autocast(config: TrainConfig, device: torch.device) -> Any:
    """Return the context of a forward pass."""
    if config.precision != "bf16_autocast":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def normalise_in_float32(model: nn.Module) -> None:
    """Let layers with batch statistics compute in float32 where weights are in half precision.

    The statistics stay float32, and torch takes no weights of another kind beside them.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = partial(_normalised, module)  # type: ignore[method-assign]


def _normalised(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    weight, bias = (None if one is None else one.float() for one in (norm.weight, norm.bias))
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    uses_batch = norm.training or norm.running_mean is None
    return functional.batch_norm(
        inputs.float(),
        norm.running_mean,
        norm.running_var,
        weight,
        bias,
        uses_batch,
        momentum,
        norm.eps,
    ).to(inputs.dtype)
