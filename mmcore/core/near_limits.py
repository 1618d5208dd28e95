"""What near samples are told by: which modalities, from where on, and in which columns they lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.core.columns import DIGEST_BYTES, Bytes, Column, Corpus, Identity, Ints, Want
from mmcore.core.linkage import META_PREFIX
from mmcore.errors import ConfigError
from mmcore.media.near.compare import COMPARISONS
from mmcore.media.near.hamming import MAX_DISTANCE
from mmcore.media.near.prints import PRINT_BYTES, Prints, print_of, vector_of
from mmcore.sample import Sample

BY_DISTANCE = ("image", "video")
BY_SIMILARITY = ("audio", "text")


@dataclass(frozen=True)
class PrintOf:
    """The print of a modality, which a stage `sign_*` has stored."""

    modality: str
    lies_in_file: bool = True

    @property
    def width(self) -> int:
        return PRINT_BYTES[self.modality]

    def of(self, sample: Sample) -> Sequence[bytes]:
        found = print_of(sample, self.modality)
        return [] if found is None else [found]


@dataclass(frozen=True)
class VectorOf:
    """The embedding in a metadata field."""

    field: str
    width: int = 0
    lies_in_file: bool = True

    def of(self, sample: Sample) -> Sequence[bytes]:
        found = vector_of(sample, self.field)
        return [] if found is None else [found.tobytes()]


@dataclass(frozen=True)
class Limits:
    """From where on two samples are near, by modality, and who is compared with whom."""

    max_distance: Mapping[str, int]
    """Bits of 64, `image` and `video`."""
    min_similarity: Mapping[str, float]
    """0 to 1, `text`, `audio` and `meta:<field>`."""
    within: tuple[str, ...] = ()

    @property
    def by_name(self) -> Mapping[str, float]:
        """The limit of each modality, in the order in which reasons are given."""
        found = {**self.max_distance, **self.min_similarity}
        return {name: found[name] for name in sorted(found, key=_order)}

    def wants(self) -> tuple[Want, ...]:
        """Return the columns to compare."""
        groups = [Identity(self.within, True)] if self.within else []
        return (*map(want_of, self.by_name), *groups)

    def check(self, rule: str) -> None:
        """Raise ConfigError for a modality or a limit that means nothing."""
        for name, bits in self.max_distance.items():
            if name not in BY_DISTANCE:
                raise ConfigError(
                    f"{rule}.max_distance: {name!r} has no distance in bits. "
                    f"{', '.join(BY_DISTANCE)} have; the others belong in min_similarity."
                )
            if not 0 <= bits <= MAX_DISTANCE:
                raise ConfigError(
                    f"{rule}.max_distance.{name}={bits}: use 0 to {MAX_DISTANCE} of 64 bits."
                )
        for name, share in self.min_similarity.items():
            is_embedding = name.startswith(META_PREFIX) and len(name) > len(META_PREFIX)
            if name not in BY_SIMILARITY and not is_embedding:
                raise ConfigError(
                    f"{rule}.min_similarity: {name!r} cannot be compared so. Use "
                    f"{', '.join(BY_SIMILARITY)} or {META_PREFIX}<field>; image and video belong "
                    "in max_distance."
                )
            if not 0 < share <= 1:
                raise ConfigError(
                    f"{rule}.min_similarity.{name}={share:g} is not above 0 and at most 1."
                )


def want_of(name: str) -> Want:
    """Return the column that holds what is compared under a name."""
    is_embedding = name.startswith(META_PREFIX)
    return VectorOf(name.removeprefix(META_PREFIX)) if is_embedding else PrintOf(name)


def groups_of(corpus: Corpus, limits: Limits) -> Bytes:
    """Return the digest of the group in which each row is compared, [N, 16]."""
    if not limits.within:
        return np.broadcast_to(np.zeros(DIGEST_BYTES, np.uint8), (corpus.num_rows, DIGEST_BYTES))
    return corpus[Identity(limits.within, True)].take()


def prints_at(column: Column, places: Ints) -> Prints:
    """Return the prints at some places of a column."""
    return Prints(column.store, column.at[places])


def _order(name: str) -> tuple[int, str]:
    names = list(COMPARISONS)
    return (names.index(name) if name in names else len(names), name)
