"""What a step of DeepSpeed 0.19 leaves to be wished for where weights are float32.

It rounds the length of a gradient and its shortening otherwise than torch, so that losses drift
apart, and copies every gradient there and back where there is no other rank to share it with.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


def clip_as_torch(
    optimizer: Any, trained: Sequence[nn.Parameter], *, limit: float, num_ranks: int
) -> None:
    """Let a ZeRO optimizer measure and shorten gradients as `clip_grad_norm_` does.

    In one rank bit for bit; between ranks pieces of gradients are summed in float64.
    """
    order = {id(parameter): place for place, parameter in enumerate(trained)}

    def norm() -> Tensor:
        found = sorted(_gradients(optimizer, order), key=lambda one: one[0])
        total = _norm([gradient for _, gradient in found], num_ranks)
        return torch.where(total.isfinite(), total, -1.0)  # by which DeepSpeed leaves a step out

    def coefficient(total: Tensor) -> Tensor:
        return torch.clamp(limit / (total + 1e-6), max=1.0)

    def shorten_flat(flat: Sequence[Tensor], total: Tensor) -> None:
        if limit:
            torch._foreach_mul_(list(flat), coefficient(total))

    def shorten_group(group: int, total: Tensor) -> None:
        if limit:
            optimizer.fp32_partitioned_groups_flat[group].grad.mul_(coefficient(total))

    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        optimizer._get_norm_groups = lambda: [norm()]
        optimizer.unscale_and_clip_grads = shorten_group
    else:
        optimizer.scaled_global_norm = norm
        optimizer.unscale_and_clip_grads = shorten_flat


def keep_gradients_here(optimizer: Any) -> None:
    """Let the ZeRO optimizer of one rank alone take gradients as they are.

    Its gradients have to be left where they are: `contiguous_gradients` is false.
    """
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        own = "_DeepSpeedZeroOptimizer_Stage3__avg_scatter_grads"
        assert hasattr(optimizer, own)
        setattr(optimizer, own, lambda parameters, _: [one.grad.flatten() for one in parameters])
    else:
        assert hasattr(optimizer, "buffered_reduce_fallback")
        optimizer.buffered_reduce_fallback = lambda *_, **__: None


def _gradients(optimizer: Any, order: dict[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Yield this rank's pieces of gradients, each with the place of its parameter in the model."""
    is_stage_3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    groups = optimizer.fp16_groups if is_stage_3 else optimizer.params_in_partition
    for group, parameters in enumerate(groups):
        gradients = (
            one
            for one in optimizer.averaged_gradients[group]
            if not getattr(one, "_zero_padding", False)
        )
        # a rank that has no parameter of a group has padding in their place
        for parameter, gradient in zip(parameters, gradients, strict=False):
            yield order[id(parameter)], gradient


def _norm(gradients: list[Tensor], num_ranks: int) -> Tensor:
    if num_ranks == 1:
        return nn.utils.get_total_norm(gradients)
    squared = torch.zeros((), dtype=torch.float64)
    if gradients:
        norms = torch.stack(torch._foreach_norm(gradients)).double()
        squared = norms.square().sum()
    dist.all_reduce(squared)
    return squared.sqrt().float()
