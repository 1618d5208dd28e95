"""The reference: one process, plain torch."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.models.lora import merged_weights
from mmcore.models.multimodal import ModelOutput
from mmcore.sample import Json
from mmcore.train.config import TrainConfig
from mmcore.train.engines.optimizers import build_optimizer, steer
from mmcore.train.engines.precision import autocast
from mmcore.train.engines.state import ReadSlice, TrainingState
from mmcore.train.engines.world import World
from mmcore.train.engines.zero import whole_partition


class TorchEngine:
    """One process, plain torch."""

    def __init__(self, model: nn.Module, config: TrainConfig, world: World) -> None:
        self._device = world.device
        self.model = model.to(self._device)
        self._config = config
        self._optimizer = build_optimizer(self.model, config)
        self._num_turns = config.num_turns(world.num_ranks)
        self._is_first = True
        trained = [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]
        self._trained = [parameter for _, parameter in trained]
        self._state = TrainingState(
            self.model,
            [whole_partition(name, parameter) for name, parameter in trained],
            self._optimizer,
            refresh=lambda: None,
            is_shared=True,
            ema_decay=config.ema_decay,
        )

    def forward(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        with autocast(self._config, self._device):
            output: ModelOutput = self.model(batch)
            return output

    def backward(self, loss: Tensor, *, is_last: bool = True) -> None:
        if self._is_first:
            self._optimizer.zero_grad(set_to_none=True)
        self._is_first = is_last
        (loss / self._num_turns).backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float, *, momentum: float | None = None) -> float:
        for parameter in self._trained:
            if parameter.grad is None:  # as under ZeRO, where it is a slice of zeros
                parameter.grad = torch.zeros_like(parameter)
        limit = self._config.max_grad_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self._trained, limit)
        steer(self._optimizer, learning_rate=learning_rate, momentum=momentum)
        self._optimizer.step()
        self._state.average()
        return float(norm)

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def evaluating(self, *, is_evaluating: bool) -> None:
        self._state.show_average(shown=is_evaluating)
        self.model.train(not is_evaluating)

    def weights(self) -> dict[str, Tensor]:
        with self._state.averaged():
            whole = {
                name: tensor.detach().to("cpu", copy=True)
                for name, tensor in self.model.state_dict().items()
            }
            return merged_weights(self.model, whole)

    def named_state(self) -> dict[str, Tensor]:
        return self._state.tensors()

    def layout(self) -> dict[str, Json]:
        return self._state.layout()

    def scalars(self) -> dict[str, Json]:
        return self._state.scalars()

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._state.load(tensors, facts)

    def load_full_state(
        self, read: ReadSlice, kinds: Collection[str], facts: Mapping[str, Any]
    ) -> None:
        self._state.load_whole(read, kinds, facts)

    def close(self) -> None:
        """Nothing to let go of."""
