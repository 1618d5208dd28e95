"""The one door to DeepSpeed and to the other ranks."""

import gc
import os
import warnings
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch._dynamo
from pydantic import ValidationError
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from mmcore.errors import ConfigError, MissingExtra
from mmcore.models.lora import merged_weights
from mmcore.models.multimodal import ModelOutput
from mmcore.sample import Json
from mmcore.train.config import TrainConfig
from mmcore.train.deepspeed_config import deepspeed_config
from mmcore.train.engines.meeting import join_ranks
from mmcore.train.engines.optimizers import build_optimizer, steer
from mmcore.train.engines.precision import autocast, normalise_in_float32
from mmcore.train.engines.state import ReadSlice, TrainingState
from mmcore.train.engines.world import World
from mmcore.train.engines.zero import zero_partitions, zero_refresh
from mmcore.train.engines.zero_step import clip_as_torch, keep_gradients_here

# of a rank with the others in a collective; torch waits for half an hour
_PATIENCE = timedelta(seconds=60)
_COUNTS = ("global_steps", "global_samples", "micro_steps", "skipped_steps")
_LOSS_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine:
    """Any number of ranks: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, model: nn.Module, config: TrainConfig, world: World) -> None:
        self._world = world
        self._device = world.device
        self._config = config
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if config.precision in ("bf16", "fp16"):
            normalise_in_float32(model)
        settings = deepspeed_config(
            config,
            num_ranks=world.num_ranks,
            num_elements=sum(parameter.numel() for parameter in trained),
            device_type=self._device.type,
        )
        deepspeed = _import_deepspeed(self._device)
        self._deepspeed = deepspeed
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        self._has_started_group = not dist.is_initialized()
        if self._has_started_group:
            join_ranks(backend, world, patience=_PATIENCE)
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
        trains_all = len(trained) == len(list(model.parameters()))
        if config.zero_stage == 3 and trains_all and not config.recomputes_activations:
            _fetch_by_layer(deepspeed, model)
        # without ZeRO DeepSpeed shortens gradients tensor by tensor, and tells no norm
        self._clips_here = config.zero_stage == 0 and config.precision in ("fp32", "bf16_autocast")
        if self._clips_here:
            settings["gradient_clipping"] = 0.0
        self._linear = functional.linear  # at stage 3 DeepSpeed puts its own in its place, for ever
        try:
            self._engine, self._optimizer, _, _ = deepspeed.initialize(
                model=model,
                optimizer=build_optimizer(model, config),
                config=settings,
                dist_init_required=False,
            )
        except ValidationError as error:
            if not config.deepspeed_file:
                raise
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise ConfigError(
                f"DeepSpeed does not take {config.deepspeed_file}: {where}: {problem['msg']}."
            ) from error
        self._trained = trained
        if config.zero_stage and config.precision in ("fp32", "bf16_autocast"):
            self._step_as_torch_does(settings)
        if world.num_ranks == 1 and config.zero_stage == 0:
            # there is nobody to share with, and it copies every gradient there and back
            self._engine.enable_backward_allreduce = False
        self._state = TrainingState(
            self._engine.module,
            zero_partitions(self._engine.module, self._optimizer, rank=world.rank),
            _torch_optimizer(self._optimizer),
            refresh=zero_refresh(self._optimizer),
            is_shared=config.zero_stage == 0 or world.num_ranks == 1,
            ema_decay=config.ema_decay,
        )

    def forward(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        with autocast(self._config, self._device):
            output: ModelOutput = self._engine(batch)
            return output

    def backward(self, loss: Tensor, *, is_last: bool = True) -> None:
        self._engine.backward(loss)
        if not is_last:
            self._engine.step()  # it counts the turns, and changes nothing yet

    def step(self, learning_rate: float, *, momentum: float | None = None) -> float:
        steer(self._optimizer, learning_rate=learning_rate, momentum=momentum)
        norm = self._clipped() if self._clips_here else None
        num_skipped = self._engine.skipped_steps
        self._engine.step()
        if self._engine.skipped_steps > num_skipped:
            return float("inf")
        self._state.average()
        if norm is None:
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
        self._state.show_average(shown=is_evaluating)
        self._engine.module.train(not is_evaluating)
        if is_evaluating and self._world.num_ranks > 1:
            # each rank has seen its own part of the data: batch statistics differ
            for buffer in self._engine.module.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self._world.num_ranks

    def weights(self) -> dict[str, Tensor]:
        with self._state.averaged():
            return merged_weights(self._engine.module, self._whole_weights())

    def named_state(self) -> dict[str, Tensor]:
        return self._state.tensors()

    def layout(self) -> dict[str, Json]:
        return self._state.layout()

    def scalars(self) -> dict[str, Json]:
        scaler = self._loss_scaler()
        return {
            **self._state.scalars(),
            "counts": {name: int(getattr(self._engine, name)) for name in _COUNTS},
            "loss_scale": {
                name: float(getattr(scaler, name)) for name in _LOSS_SCALER if hasattr(scaler, name)
            },
        }

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._state.load(tensors, facts)
        self._load_counts(facts)

    def load_full_state(
        self, read: ReadSlice, kinds: Collection[str], facts: Mapping[str, Any]
    ) -> None:
        self._state.load_whole(read, kinds, facts)
        self._load_counts(facts)

    def close(self) -> None:
        self._engine.destroy()
        functional.linear = self._linear
        if self._has_started_group:
            dist.destroy_process_group()
        gc.collect()

    def _step_as_torch_does(self, settings: Mapping[str, Any]) -> None:
        config, num_ranks = self._config, self._world.num_ranks
        if config.offload_optimizer:
            return
        clip_as_torch(
            self._optimizer, self._trained, limit=config.max_grad_norm, num_ranks=num_ranks
        )
        is_gathered = settings["zero_optimization"]["contiguous_gradients"]  # a file may say so
        if not config.gathers_gradients(num_ranks) and not is_gathered:
            keep_gradients_here(self._optimizer)

    def _clipped(self) -> Tensor:
        limit = self._config.max_grad_norm or float("inf")
        return nn.utils.clip_grad_norm_(self._trained, limit)

    def _whole_weights(self) -> dict[str, Tensor]:
        module = self._engine.module
        if self._config.zero_stage < 3:
            return {name: _copied(tensor) for name, tensor in module.state_dict().items()}
        parameters = list(module.parameters())
        with self._deepspeed.zero.GatheredParameters(parameters, modifier_rank=None):
            if self._world.rank != 0:
                return {}
            return {name: _copied(tensor) for name, tensor in module.state_dict().items()}

    def _loss_scaler(self) -> Any:
        """Return what holds the scale of the loss; None where it is not scaled."""
        if self._config.precision != "fp16":
            return None
        # at stage 0 it depends on the optimizer that DeepSpeed has made around ours
        for name in ("loss_scaler", "loss_scale_config"):
            if hasattr(self._optimizer, name):
                return getattr(self._optimizer, name)
        return self._optimizer

    def _load_counts(self, facts: Mapping[str, Any]) -> None:
        # the torch engine keeps none; the number of turns differs between numbers of ranks
        counts = dict(facts.get("counts", {}))
        if "global_steps" in counts:
            counts["micro_steps"] = (
                counts["global_steps"] * self._engine.gradient_accumulation_steps()
            )
        for name, value in counts.items():
            setattr(self._engine, name, int(value))
        scaler = self._loss_scaler()
        for name, value in facts.get("loss_scale", {}).items():
            if scaler is not None and hasattr(scaler, name):
                setattr(scaler, name, type(getattr(scaler, name))(value))


def _fetch_by_layer(deepspeed: Any, model: nn.Module) -> None:
    """Let ZeRO-3 ask the other ranks for a layer at once, and not for each of its matrices.

    DeepSpeed 0.19 does not fetch a layer for the backward pass when nothing before it is trained.
    """
    layers = {type(one) for one in model.modules() if isinstance(one, GradientCheckpointingLayer)}
    if layers:
        deepspeed.utils.set_z3_leaf_modules(model, sorted(layers, key=lambda kind: kind.__name__))


def _torch_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


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
    # DeepSpeed calls collectives by names that torch has begun to warn about
    deprecated = r".*(all_gather_into|reduce_scatter)_tensor.* is deprecated"
    warnings.filterwarnings("ignore", message=deprecated)
    # DeepSpeed decorates an optimizer that we do not use with torch.compile: two seconds of imports
    torch._dynamo.config.disable = True
    # an all-reduce for inference, compiled for a minute on first use; training never calls it
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
