"""Engines: what a training step is, in one process or over many ranks.

`TorchEngine` is the reference that says what a step means; `DeepSpeedEngine` does the same over
any number of ranks, with optimizer state, gradients and weights shared out by ZeRO (Rajbhandari et
al., SC 2020).
"""

from torch import nn

from mmcore.train.config import TrainConfig
from mmcore.train.engines.deepspeed_engine import DeepSpeedEngine
from mmcore.train.engines.protocol import Engine
from mmcore.train.engines.torch_engine import TorchEngine
from mmcore.train.engines.world import World

__all__ = ["DeepSpeedEngine", "Engine", "TorchEngine", "World", "build_engine"]


def build_engine(model: nn.Module, config: TrainConfig, world: World) -> Engine:
    """Return the engine that a configuration asks for."""
    config.check_ranks(world.num_ranks)
    if config.engine == "torch":
        return TorchEngine(model, config, world)
    return DeepSpeedEngine(model, config, world)
