"""Where DeepSpeed 0.19 keeps the float32 weights of a rank, stage by stage.

It is read from DeepSpeed's own bookkeeping, so that a layout says what is there and not what
should be.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mmcore.train.engines.state import Partition, Slice


def zero_partitions(module: nn.Module, optimizer: Any, *, rank: int) -> list[Partition]:
    """Return this rank's partitions under whatever optimizer DeepSpeed has made."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        return _stage_3(names, optimizer, rank)
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        return _stages_1_and_2(names, optimizer, rank)
    if hasattr(optimizer, "fp32_groups"):  # stage 0 in half precision
        pairs = (
            (names[id(half)], master)
            for halves, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
            for half, master in zip(halves, masters, strict=True)
        )
    else:
        groups = optimizer.param_groups
        pairs = ((names[id(one)], one) for group in groups for one in group["params"])
    return [whole_partition(name, master) for name, master in pairs]


def whole_partition(name: str, master: torch.Tensor) -> Partition:
    """Return the partition that is one whole parameter."""
    piece = Slice(parameter=name, shape=tuple(master.shape), start=0, at=0, count=master.numel())
    return Partition(name, master, (piece,))


def zero_refresh(optimizer: Any) -> Callable[[], None]:
    """Return what brings the weights that the model computes with in line with the masters."""
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        return lambda: _refresh_stage_3(optimizer)
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        return lambda: optimizer.update_lp_params()
    if hasattr(optimizer, "fp32_groups"):
        return lambda: _refresh_halves(optimizer)
    return lambda: None


def _stages_1_and_2(names: dict[int, str], optimizer: Any, rank: int) -> list[Partition]:
    found = []
    for group, master in enumerate(optimizer.single_partition_of_fp32_groups):
        size = optimizer.partition_size[group]
        first, end = rank * size, (rank + 1) * size
        slices = []
        for parameter, offset in zip(
            optimizer.round_robin_bit16_groups[group],
            optimizer.round_robin_bit16_offsets[group],
            strict=True,
        ):
            begins, ends = max(first, offset), min(end, offset + parameter.numel())
            if begins < ends:
                slices.append(
                    Slice(
                        parameter=names[id(parameter)],
                        shape=tuple(parameter.shape),
                        start=begins - offset,
                        at=begins - first,
                        count=ends - begins,
                    )
                )
        found.append(Partition(str(group), master, tuple(slices)))
    return found


def _stage_3(names: dict[int, str], optimizer: Any, rank: int) -> list[Partition]:
    found = []
    for group, master in enumerate(optimizer.fp32_partitioned_groups_flat):
        slices, at = [], 0
        for parameter in optimizer.fp16_groups[group]:
            held = parameter.partition_numel()
            start = rank * held
            count = min(held, parameter.ds_numel - start)
            if count > 0:
                slices.append(
                    Slice(
                        parameter=names[id(parameter)],
                        shape=tuple(parameter.ds_shape),
                        start=start,
                        at=at,
                        count=count,
                    )
                )
            at += held
        found.append(Partition(str(group), master, tuple(slices)))
    return found


def _refresh_stage_3(optimizer: Any) -> None:
    optimizer._partition_all_parameters()
    for group in range(len(optimizer.fp16_groups)):
        optimizer._reassign_or_swap_out_partitioned_parameters(group)
    persistent = optimizer.persistent_parameters
    if persistent:  # small ones, of which every rank holds the whole
        persistent[0].all_gather(persistent)


def _refresh_halves(optimizer: Any) -> None:
    for halves, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
        for half, master in zip(halves, masters, strict=True):
            half.data.copy_(master.data)
