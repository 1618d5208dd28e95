"""Engines: what a training step is, in one process or over many ranks.

`TorchEngine` is the reference that says what a step means; `DeepSpeedEngine` does the same over
any number of ranks, with optimizer state, gradients and weights shared out by ZeRO (Rajbhandari et
al., SC 2020).
"""

import torch
from torch import nn

from mmcore.core.host_memory import available_host_bytes
from mmcore.errors import ConfigError
from mmcore.models.lora import add_lora, freeze
from mmcore.train.config import TrainConfig
from mmcore.train.engines.activations import recompute_activations
from mmcore.train.engines.deepspeed_engine import DeepSpeedEngine
from mmcore.train.engines.protocol import Engine
from mmcore.train.engines.torch_engine import TorchEngine
from mmcore.train.engines.world import World
from mmcore.train.memory import check_memory

__all__ = ["DeepSpeedEngine", "Engine", "TorchEngine", "World", "build_engine"]


def build_engine(model: nn.Module, config: TrainConfig, world: World) -> Engine:
    """Return the engine that a configuration asks for; it takes the model over.

    ConfigError before anything starts when the ranks cannot share the batch, when patterns fit no
    weights, or when there is less memory than the weights need.
    """
    config.check_ranks(world.num_ranks)
    freeze(model, config.freeze)
    if config.lora is not None:
        add_lora(
            model,
            config.lora.targets,
            rank=config.lora.rank,
            alpha=config.lora.alpha,
            seed=config.seed,
        )
    if config.recomputes_activations:
        recompute_activations(model)
    _check_memory(model, config, world)
    check_same_path(model, config, world.num_ranks)
    if config.engine == "torch":
        return TorchEngine(model, config, world)
    return DeepSpeedEngine(model, config, world)


def _check_memory(model: nn.Module, config: TrainConfig, world: World) -> None:
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        counts[parameter.requires_grad] += parameter.numel()
    is_gpu = world.device.type == "cuda"
    available = available_host_bytes()
    if not is_gpu:  # what the model of each rank holds now is what its engine takes over
        available += 4 * world.num_local_ranks * sum(counts.values())
    check_memory(
        config,
        num_trained=counts[True],
        num_frozen=counts[False],
        num_ranks=world.num_ranks,
        num_local_ranks=world.num_local_ranks,
        available_bytes=available,
        device_bytes=torch.cuda.mem_get_info(world.device)[0] if is_gpu else 0,
    )


def check_same_path(model: nn.Module, config: TrainConfig, num_ranks: int) -> None:
    """Refuse layers that each rank leaves out by chance: under ZeRO-3 the others wait for ever."""
    if config.engine == "torch" or config.zero_stage < 3 or num_ranks == 1:
        return
    for name, module in model.named_modules():
        if getattr(module, "layerdrop", 0):
            raise ConfigError(
                f"{name} leaves out layers by chance (layerdrop={module.layerdrop}), each rank "
                "others, and with train.zero_stage=3 a layer needs all ranks. Set its layerdrop "
                "to 0, or use zero_stage 2."
            )
