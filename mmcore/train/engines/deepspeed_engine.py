"""The one door to DeepSpeed and to the other ranks."""

import gc
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn
from torch import distributed as dist

from mmcore.errors import MissingExtra
from mmcore.models.multimodal import ModelOutput
from mmcore.train.config import TrainConfig
from mmcore.train.engines.deepspeed_config import deepspeed_config
from mmcore.train.engines.optimizers import parameter_groups
from mmcore.train.engines.precision import autocast
from mmcore.train.engines.world import World


class DeepSpeedEngine:
    """Any number of ranks: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, model: nn.Module, config: TrainConfig, world: World) -> None:
        self._world = world
        self._device = world.device
        self._config = config
        deepspeed = _import_deepspeed(self._device)
        self._deepspeed = deepspeed
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        self._has_started_group = not dist.is_initialized()
        if self._has_started_group:
            dist.init_process_group(backend, rank=world.rank, world_size=world.num_ranks)
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, weight_decay=config.weight_decay),
            lr=config.learning_rate,
            betas=config.betas,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=deepspeed_config(config, num_ranks=world.num_ranks),
            dist_init_required=False,
        )

    def forward(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        with autocast(self._config, self._device):
            output: ModelOutput = self._engine(batch)
            return output

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def gather(self, tensor: Tensor) -> Tensor:
        if self._world.num_ranks == 1:
            return tensor
        # gloo moves no booleans
        plain = tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach()
        rows = [torch.empty_like(plain) for _ in range(self._world.num_ranks)]
        dist.all_gather(rows, plain.contiguous())
        rows = [row.to(tensor.dtype) for row in rows]
        rows[self._world.rank] = tensor
        return torch.cat(rows)

    def evaluating(self, *, is_evaluating: bool) -> None:
        self._engine.module.train(not is_evaluating)
        if is_evaluating and self._world.num_ranks > 1:
            # each rank has seen its own part of the data: batch statistics differ
            for buffer in self._engine.module.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self._world.num_ranks

    def weights(self) -> dict[str, Tensor]:
        module = self._engine.module
        if self._config.zero_stage < 3:
            return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
        parameters = list(module.parameters())
        with self._deepspeed.zero.GatheredParameters(parameters, modifier_rank=None):
            if self._world.rank != 0:
                return {}
            return {name: t.detach().cpu().clone() for name, t in module.state_dict().items()}

    def close(self) -> None:
        self._engine.destroy()
        if self._has_started_group:
            dist.destroy_process_group()
        gc.collect()


def _import_deepspeed(device: torch.device) -> Any:
    if device.type == "cpu":
        # it would probe for drivers, and take the first it finds
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed  # takes seconds, and the torch engine does without
    except ImportError as error:
        raise MissingExtra(
            "train.engine=deepspeed needs the library deepspeed. Install mmcore[train], or use "
            "engine: torch with one rank."
        ) from error
    # DeepSpeed calls a collective by the name that torch has begun to warn about
    warnings.filterwarnings("ignore", message=r".*all_gather_into_tensor.* is deprecated")
    # DeepSpeed decorates an optimizer that we do not use with torch.compile: two seconds of imports
    torch._dynamo.config.disable = True
    # an all-reduce for inference, compiled for a minute on first use; training never calls it
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
