"""The one door to DeepSpeed and to the other ranks: forward, backward, step, on one rank or many.

`TorchEngine` is the reference that says what a step means; `DeepSpeedEngine` does the same over
any number of ranks, with optimizer state, gradients and weights shared out by ZeRO (Rajbhandari et
al., SC 2020).
"""

import gc
import os
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch._dynamo
from torch import Tensor, nn
from torch import distributed as dist

from mmcore.errors import ConfigError, MissingExtra
from mmcore.models.multimodal import ModelOutput
from mmcore.train.config import TrainConfig

# Small: the default of 5e8 elements would reserve gigabytes for a model of a few megabytes.
_BUCKET_ELEMENTS = 5_000_000


@dataclass(frozen=True)
class World:
    """Which rank this process is, among how many."""

    rank: int
    num_ranks: int
    local_rank: int
    """Among the ranks of this host: the number of its GPU."""

    @staticmethod
    def from_environment() -> "World":
        """Read what torchrun, Ray Train or our executor has set. Read nowhere else."""
        try:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
            return World(*(int(os.environ[name]) for name in names))
        except KeyError as error:
            raise ConfigError(
                f"{error.args[0]} is not set, so this process does not know which rank it is. "
                "Start training through an executor, or with torchrun."
            ) from error

    @property
    def device(self) -> torch.device:
        """Return the GPU of this rank, or the CPU."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")


class Engine(Protocol):
    """Trains one model; every method is called on every rank, in the same order."""

    def forward(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        """Return what the model says of this rank's slice of a batch."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients, and take their mean over the ranks."""
        ...

    def step(self, learning_rate: float) -> float:
        """Change the weights once; return the norm of the gradient before it was shortened."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the rows of all ranks; gradients flow through the rows of this one."""
        ...

    def evaluating(self, *, is_evaluating: bool) -> None:
        """Switch dropout and batch statistics off or on; off also takes their mean over ranks."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return the whole model on rank 0, on the CPU; other ranks may get an empty mapping."""
        ...

    def close(self) -> None:
        """Let go of the other ranks."""
        ...


def build_engine(model: nn.Module, config: TrainConfig, world: World) -> Engine:
    """Return the engine that a configuration asks for."""
    config.check_ranks(world.num_ranks)
    if config.engine == "torch":
        return TorchEngine(model, config, world)
    return DeepSpeedEngine(model, config, world)


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return matrices with weight decay, vectors without."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def deepspeed_config(config: TrainConfig, *, num_ranks: int) -> dict[str, Any]:
    """Return DeepSpeed's own configuration for a training run."""
    config.check_ranks(num_ranks)
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": _BUCKET_ELEMENTS,
        "allgather_bucket_size": _BUCKET_ELEMENTS,
        # sums in one order: overlapped reductions may add in another
        "overlap_comm": False,
        "contiguous_gradients": True,
    }
    if config.is_offloaded:
        zero["offload_optimizer"] = {"device": "cpu"}
        if config.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.global_batch_size // num_ranks,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm,
        "steps_per_print": 2**31,
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": zero,
        # torch's AdamW: DeepSpeed's own for CPUs is compiled on first use, which takes a minute
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


class TorchEngine:
    """One process, plain torch."""

    def __init__(self, model: nn.Module, config: TrainConfig, world: World) -> None:
        self._device = world.device
        self.model = model.to(self._device)
        self._config = config
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self.model, weight_decay=config.weight_decay),
            lr=config.learning_rate,
            betas=config.betas,
        )

    def forward(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        with _autocast(self._config, self._device):
            output: ModelOutput = self.model(batch)
            return output

    def backward(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> float:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        limit = self._config.max_grad_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(trained, limit)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return float(norm)

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def evaluating(self, *, is_evaluating: bool) -> None:
        self.model.train(not is_evaluating)

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}

    def close(self) -> None:
        """Nothing to let go of."""


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
        with _autocast(self._config, self._device):
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


def _autocast(config: TrainConfig, device: torch.device) -> Any:
    if config.precision != "bf16_autocast":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
