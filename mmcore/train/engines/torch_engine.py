"""The reference: one process, plain torch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcore.models.multimodal import ModelOutput
from mmcore.train.config import TrainConfig
from mmcore.train.engines.optimizers import parameter_groups
from mmcore.train.engines.precision import autocast
from mmcore.train.engines.world import World


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
        with autocast(self._config, self._device):
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
