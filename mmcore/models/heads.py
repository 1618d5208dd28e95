"""What stands on the encoders: one embedding space, a class head per modality, and their fusion."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

_PULL = 0.01  # as much as the evidence of a few samples


class ModalityHead(nn.Module):
    """Features [B, F] to an L2-normalised embedding [B, D] and class logits [B, C]."""

    def __init__(
        self, num_features: int, *, embedding_dim: int, num_labels: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(num_features, embedding_dim, bias=False)
        self.classify = nn.Linear(num_features, num_labels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.dropout(self.norm(features))
        return functional.normalize(self.project(hidden), dim=-1), self.classify(hidden)


class ProductOfExperts(nn.Module):
    """Class logits of several modalities to those of all together, absent modalities left out.

    The log-probabilities are added with a weight per modality (Hinton, Neural Computation 2002).
    The weights are 1 in training: on samples that it has learnt every modality is nearly always
    right, so that weights learnt there say little about new ones. `fitted_weights` finds them on
    the validation split.
    """

    weights: Tensor

    def __init__(self, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.modalities = modalities
        self.register_buffer("weights", torch.ones(len(modalities)))

    def forward(self, logits: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros_like(next(iter(logits.values())))
        for index, name in enumerate(self.modalities):
            expert = functional.log_softmax(logits[name], dim=-1)
            total = total + self.weights[index] * expert * present[name][:, None]
        return total


def fitted_weights(
    fusion: ProductOfExperts,
    logits: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    labels: Tensor,
) -> Tensor:
    """Return the weights, above 0, that make labels of held-out samples most likely.

    One number per modality, so that a few dozen samples are enough; a weight below 1 also tempers
    a modality that is too sure of itself (Guo et al., On Calibration, ICML 2017).
    """
    logits = {name: logits[name].double() for name in fusion.modalities}
    present = {name: present[name].double() for name in fusion.modalities}
    log_weights = torch.zeros(len(fusion.modalities), dtype=torch.float64, requires_grad=True)
    trial = ProductOfExperts(fusion.modalities)
    optimizer = torch.optim.LBFGS([log_weights], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        trial.weights = log_weights.exp()
        # drawn to 1, so that a modality that is never wrong gets no endless weight
        penalty = _PULL * (trial.weights - 1).square().sum()
        value = functional.cross_entropy(trial(logits, present), labels) + penalty
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return log_weights.detach().exp().float()
