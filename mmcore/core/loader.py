"""The seam between shards and whoever learns from them: training and evaluation know only this."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mmcore.core.step import Inputs
from mmcore.sample import Json


@dataclass(frozen=True)
class Batch:
    """A batch of samples as arrays. A modality that a sample lacks is zeros under a False mask."""

    keys: Sequence[str]
    arrays: Mapping[str, np.ndarray[Any, Any]]
    """B samples:
    image uint8 [B, H, W, 3]; has_image bool [B];
    text_ids int64 [B, L] padded with 0; text_mask bool [B, L]; has_text bool [B];
    audio_mel float32 [B, T, M], log-mel of 16 kHz mono; audio_mask bool [B, T]; has_audio bool [B];
    label int64 [B], an index into `labels`, or -1 where it is not known;
    group int64 [B], equal for samples that mean the same.
    Texts that are packed besides, P rows of K tokens: packed_ids, packed_segment (the row of the
    sample in the batch plus 1, 0 for padding) and packed_position, int64 [P, K].
    """
    seconds_waited: float = 0.0
    """How long whoever asked for it waited: the data stall of a step."""


@dataclass(frozen=True)
class Position:
    """Where training stands in the stream of samples; what a checkpoint keeps of a loader."""

    epoch: int = 0
    step: int = 0
    """The next one, counted from the beginning of the epoch."""

    def after(self, *, num_steps: int) -> "Position":
        """Return where it stands one step later, in epochs of so many steps."""
        if self.step + 1 < num_steps:
            return Position(self.epoch, self.step + 1)
        return Position(self.epoch + 1, 0)

    def to_json(self) -> dict[str, int]:
        """Return it as a JSON value."""
        return {"epoch": self.epoch, "step": self.step}

    @staticmethod
    def from_json(value: Mapping[str, int]) -> "Position":
        """Return what `to_json` has written."""
        return Position(int(value["epoch"]), int(value["step"]))


@dataclass(frozen=True)
class SampleInfo:
    """What is known of a sample without reading its bytes."""

    key: str
    split: str
    shard: str
    index: int
    """Position in the shard."""
    extensions: tuple[str, ...]
    meta: Mapping[str, Json]


class OpenLoader(Protocol):
    """A dataset that is ready to be read. Everything it yields is a function of its arguments."""

    @property
    def labels(self) -> Sequence[str]:
        """The names of the classes, sorted."""
        ...

    @property
    def vocab_size(self) -> int:
        """How many ids the tokenizer has."""
        ...

    def samples(self, split: str) -> Sequence[SampleInfo]:
        """Return what is known of every sample of a split, in the order of the shards."""
        ...

    def parts(self, key: str) -> Mapping[str, bytes]:
        """Return the bytes of one sample by extension."""
        ...

    def num_steps(self, split: str, *, global_batch_size: int) -> int:
        """Return the steps of an epoch: the same on every rank, without the incomplete batch."""
        ...

    def epoch(
        self,
        split: str,
        *,
        seed: int,
        epoch: int,
        global_batch_size: int,
        rank: int,
        num_ranks: int,
        first_step: int = 0,
    ) -> Iterator[Batch]:
        """Yield this rank's slice of each global batch, shuffled and augmented.

        The global order depends on seed and epoch alone, augmentation on seed, epoch and key.
        """
        ...

    def in_order(self, split: str, *, batch_size: int) -> Iterator[Batch]:
        """Yield every sample once, in shard order and unaugmented; the last batch may be short."""
        ...

    def close(self) -> None:
        """End what reads ahead, and let go of files; nothing can be read any more."""
        ...


class Loader(Protocol):
    """How a dataset is turned into batches: sizes, augmentation, the tokenizer's length limit."""

    def identity(self) -> Mapping[str, Json]:
        """Return what decides the batches, besides the dataset."""
        ...

    def open(self, inputs: Inputs) -> OpenLoader:
        """Open the dataset (step `shard`) and tokenizer (step `tokenizer`) among the inputs."""
        ...
