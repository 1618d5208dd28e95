"""One step of a batch: its rows in one turn or in several, and what is said of them all."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmcore.models.config import ModelConfig
from mmcore.models.losses import label_counts, training_loss
from mmcore.train.config import TrainConfig
from mmcore.train.engines import Engine, World


def accumulate(
    engine: Engine,
    model_config: ModelConfig,
    config: TrainConfig,
    world: World,
    tensors: Mapping[str, Tensor],
) -> dict[str, float]:
    """Compute the gradients of this rank's share of a batch, turn by turn; return the losses.

    The losses are those of the whole batch, the same on every rank.
    """
    num_turns = config.num_turns(world.num_ranks)
    size = config.rank_batch_size(world.num_ranks)
    counts = engine.gather(label_counts(tensors, model_config.modalities)[None]).sum(dim=0)
    names: list[str] = []
    values: list[Tensor] = []
    for turn in range(num_turns):
        rows = slice(turn * size, (turn + 1) * size)
        part = {name: tensor[rows] for name, tensor in tensors.items()}
        parts = training_loss(
            engine.forward(part),
            part,
            model_config.loss,
            gather=engine.gather,
            num_ranks=world.num_ranks,
            counts=counts,
            num_turns=num_turns,
        )
        engine.backward(parts["loss"], is_last=turn == num_turns - 1)
        names = list(parts)
        values.append(torch.stack([parts[name].detach() for name in names]))
    means = engine.gather(torch.stack(values)).mean(dim=0)
    return dict(zip(names, means.tolist(), strict=True))
