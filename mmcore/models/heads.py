"""What stands on the encoders: one embedding space, a class head per modality, and their fusion."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


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
    On the training samples every modality is nearly always right, so weights learnt there say
    little about new data: see `mmcore.train.loop`, which fits them to the validation split.
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
