"""Optimizers, and which weights they decay."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.train.config import TrainConfig


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return matrices with weight decay, vectors without."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a configuration over the weights that are trained.

    One kernel does a whole step of a tensor where torch has such a one: the default of torch on
    CPUs walks the memory a dozen times.
    """
    groups = parameter_groups(model, weight_decay=config.weight_decay)
    rate = config.learning_rate
    if config.optimizer == "lion":
        return Lion(groups, lr=rate, betas=config.betas)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=config.betas[0], fused=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=config.betas, fused=True)


def steer(
    optimizer: torch.optim.Optimizer, *, learning_rate: float, momentum: float | None
) -> None:
    """Set what the next step goes by; a momentum is the first beta where there are betas."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


class Lion(torch.optim.Optimizer):
    """Steps of one length in the direction of the momentum's sign (Chen et al., NeurIPS 2023)."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Change the weights once; a closure is not asked."""
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            if parameters:
                self._step(parameters, group)

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [one.grad for one in parameters if one.grad is not None]
        momenta = []
        for one in parameters:
            state = self.state[one]
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(one)
            momenta.append(state["exp_avg"])
        first, second = group["betas"]
        rate = group["lr"]
        directions = torch._foreach_lerp(momenta, gradients, 1 - first)
        torch._foreach_sign_(directions)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_add_(parameters, directions, alpha=-rate)
        torch._foreach_lerp_(momenta, gradients, 1 - second)
