"""What an engine promises."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from mmcore.models.multimodal import ModelOutput


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
