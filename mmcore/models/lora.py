"""LoRA: a linear layer that stays as it is, and a product of two thin matrices that is trained.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.errors import ConfigError

_BASE, _DOWN, _UP = "base", "lora_down", "lora_up"


class LoraLinear(nn.Module):
    """A frozen linear layer plus `scale * up @ down`, which is 0 at first."""

    def __init__(
        self, base: nn.Linear, *, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        bound = 1 / math.sqrt(base.in_features)
        down = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_down = nn.Parameter(down.to(base.weight))
        self.lora_up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))

    def forward(self, values: Tensor) -> Tensor:
        narrow = functional.linear(values, self.lora_down)
        added = self.scale * functional.linear(narrow, self.lora_up)
        found: Tensor = self.base(values) + added
        return found


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Let the weights whose names fit a pattern stay as they are; ConfigError when none fits."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"train.freeze: no weight fits {pattern!r}. The model has {names[0]}, {names[-1]} "
                "and others; patterns name whole names, as encoders.text.* does."
            )
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("train.freeze leaves nothing to train. Take a pattern out.")


def add_lora(
    model: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, seed: int
) -> None:
    """Put a `LoraLinear` in the place of every linear layer whose name fits a pattern.

    ConfigError when a pattern fits none. The seed alone decides the first matrices.
    """
    linears = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    for pattern in targets:
        if not any(fnmatchcase(name, pattern) for name in linears):
            known = ", ".join(sorted(linears)[:3])
            raise ConfigError(
                f"train.lora.targets: no linear layer fits {pattern!r}. The model has {known} and "
                "others."
            )
    generator = torch.Generator().manual_seed(seed)
    for name, linear in linears.items():
        if any(fnmatchcase(name, pattern) for pattern in targets):
            parent, _, own = name.rpartition(".")
            made = LoraLinear(linear, rank=rank, alpha=alpha, generator=generator)
            setattr(model.get_submodule(parent), own, made)


def merged_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of the model without LoRA, the products added."""
    found = dict(weights)
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear) and found:
            down, up = found.pop(f"{name}.{_DOWN}"), found.pop(f"{name}.{_UP}")
            weight = found.pop(f"{name}.{_BASE}.weight")
            product = module.scale * (up.float() @ down.float())
            found[f"{name}.weight"] = (weight.float() + product).to(weight.dtype)
            if module.base.bias is not None:
                found[f"{name}.bias"] = found.pop(f"{name}.{_BASE}.bias")
    return found
