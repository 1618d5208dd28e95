"""What a model said about every sample of a split, as arrays: the input of every metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mmcore.sample import Json

Array = np.ndarray[Any, Any]

FUSED = "fused"
MODALITIES = ("image", "text", "audio")
NO_CLASS = -1


@dataclass(frozen=True)
class Predictions:
    """N samples in the order of the shards, C classes."""

    keys: Sequence[str]
    labels: Sequence[str]
    """Names of the classes."""
    meta: Sequence[Mapping[str, Json]]
    label: Array
    """int64 [N], an index into `labels`."""
    probabilities: Mapping[str, Array]
    """By head (`fused` and each modality), float64 [N, C]."""
    embeddings: Mapping[str, Array]
    """By modality that the model looks at, float32 [N, D], of length 1."""
    has: Mapping[str, Array]
    """By modality, bool [N]: whether the sample has it and the model looks at it."""

    def predicted(self, head: str) -> Array:
        """Return the class that a head is for, int64 [N]; -1 where the modality is absent."""
        if head not in self.probabilities:
            return np.full(len(self.keys), NO_CLASS)
        best = self.probabilities[head].argmax(axis=1).astype(np.int64)
        predicted: Array = np.where(self.present(head), best, NO_CLASS)
        return predicted

    def present(self, head: str) -> Array:
        """Return which samples a head can judge, bool [N]."""
        return np.ones(len(self.keys), dtype=bool) if head == FUSED else self.has[head]

    def confidence(self) -> Array:
        """Return the fused probability of the predicted class, float64 [N], to six digits."""
        best: Array = self.probabilities[FUSED].max(axis=1)
        return np.round(best, 6)

    def caption_groups(self) -> Array:
        """Return the caption group of each sample as an int64 [N], numbered in sorted order.

        Samples of one group say the same (in any language): they are one draw, not many.
        A sample without `caption_group` is a group of its own.
        """
        names = [_word(meta.get("caption_group")) or key for key, meta in self._each()]
        return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)

    def languages(self) -> list[str]:
        """Return the language of each sample, empty where none is known."""
        return [_word(meta.get("language")) for meta in self.meta]

    def table(self) -> pa.Table:
        """Return one row per sample: truth, every head's answer, the fused confidence."""
        names = [*self.labels, ""]
        columns: dict[str, Any] = {
            "key": list(self.keys),
            "label": [names[i] for i in self.label],
            "predicted": [names[i] for i in self.predicted(FUSED)],
        }
        for modality in MODALITIES:
            columns[f"predicted_{modality}"] = [names[i] for i in self.predicted(modality)]
        columns["confidence"] = self.confidence()
        columns["language"] = self.languages()
        columns["caption_group"] = [_word(meta.get("caption_group")) for meta in self.meta]
        return pa.table(columns)

    def _each(self) -> Sequence[tuple[str, Mapping[str, Json]]]:
        return list(zip(self.keys, self.meta, strict=True))


def _word(value: Json) -> str:
    return "" if value is None else str(value)
