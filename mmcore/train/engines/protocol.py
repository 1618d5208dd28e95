"""What an engine promises."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from torch import Tensor

from mmcore.models.multimodal import ModelOutput
from mmcore.sample import Json
from mmcore.train.engines.state import ReadSlice


class Engine(Protocol):
    """Trains one model; every method is called on every rank, in the same order."""

    def forward(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        """Return what the model says of this rank's slice of a batch."""
        ...

    def backward(self, loss: Tensor, *, is_last: bool = True) -> None:
        """Compute the gradients, and take their mean over the ranks and the turns of a step.

        `is_last` is false for all turns of a step but its last; there are as many as
        `TrainConfig.num_turns` says.
        """
        ...

    def step(self, learning_rate: float, *, momentum: float | None = None) -> float:
        """Change the weights once; return the norm of the gradient before it was shortened.

        Without a `momentum` the optimizer keeps its own.

        It is infinite for a step that was left out because the loss was scaled up too far.
        """
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the rows of all ranks; gradients flow through the rows of this one."""
        ...

    def evaluating(self, *, is_evaluating: bool) -> None:
        """Switch dropout and batch statistics off or on; off also takes their mean over ranks.

        With `ema_decay` the average of the weights is what is evaluated.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return the whole model on rank 0, on the CPU; other ranks may get an empty mapping.

        With `ema_decay` it is the average. What LoRA has learnt is added to the matrices.
        """
        ...

    def named_state(self) -> dict[str, Tensor]:
        """Return this rank's tensors that a checkpoint has to keep, live: copy before a step.

        `<kind>/<partition>` with the kind `master` (the float32 weights), a moment of the
        optimizer, or `ema`; and `buffer/<name>`, which differs between ranks at every stage.
        Weights that are not trained come with the model and are not among them.
        """
        ...

    def layout(self) -> dict[str, Json]:
        """Return which slices of which whole parameters the tensors of `named_state` are, as JSON.

        `is_shared` says that all ranks hold the same, but for buffers: one copy is enough.
        """
        ...

    def scalars(self) -> dict[str, Json]:
        """Return the numbers of a checkpoint: counts of steps, loss scale, random generators."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what `named_state` and `scalars` gave on this rank, at the same world size.

        The next steps are bit for bit those that would have followed.
        """
        ...

    def load_full_state(
        self, read: ReadSlice, kinds: Collection[str], facts: Mapping[str, Any]
    ) -> None:
        """Fill this rank's part from whole parameters, at any world size and stage of ZeRO.

        `read` is what `mmcore.train.engines.state.whole_reader` makes of all ranks' layouts and
        tensors, `kinds` that of a layout, `facts` the scalars of any rank.
        """
        ...

    def close(self) -> None:
        """Let go of the other ranks."""
        ...
