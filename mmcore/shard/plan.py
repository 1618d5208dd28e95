"""Which sample goes into which shard, and which into none: decided once, from keys alone.

The order inside a split is by hash, so neighbours in a shard are unrelated and the order in which
samples came in does not matter.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np

from mmcore.core.columns import Flags, Ints
from mmcore.core.leaks import Leak
from mmcore.errors import IntegrityError
from mmcore.media.near.prints import without_prints
from mmcore.sample import Json, Part, PartRef, Sample, modality_of
from mmcore.shard.document import EXTENSION

SPLITS = ("train", "val", "test")
NAME_RULE = "member_name"
PARTS_RULE = "same_parts"
_READ_BY_READERS = 5
"""Of the samples of a split, those from which Hugging Face's `datasets` infers its columns."""
OWN_JSON = "source.json"
"""What a sample's own `json` part is called in a shard, where `json` is what we know of it."""


def refuse(found: Sequence[Leak]) -> None:
    """Raise IntegrityError when there is a leak."""
    if found:
        leak = found[0]
        where = ", ".join(f"{key} in {split}" for split, key in leak.keys)
        raise IntegrityError(
            f"{len(found)} values leak between splits; the first is {leak.name} {leak.value!r}: "
            f"{where}. Nothing was published. Name {leak.name} in the split's `together`, or in "
            "its `max_distance` or `min_similarity`."
        )


def to_payload(sample: Sample) -> dict[str, Json]:
    """Return a sample as JSON, its parts by reference and without prints."""
    parts: dict[str, Json] = {}
    for extension, part in sorted(sample.parts.items()):
        assert part.ref is not None, f"{sample.key}.{extension} comes from an artifact"
        parts[extension] = asdict(part.ref)
    return {
        "key": sample.key,
        "parts": parts,
        "meta": without_prints(sample.meta),
        "scores": dict(sample.scores),
    }


def from_payload(value: Json) -> Sample:
    """Return the sample that `to_payload` described."""
    known = cast("Mapping[str, Any]", value)
    parts = {extension: Part(ref=PartRef(**ref)) for extension, ref in known["parts"].items()}
    return Sample(known["key"], parts, known["meta"], known["scores"])


def renamed(sample: Sample) -> Sample:
    """Return a sample whose own `json` part leaves that name to what we know of it."""
    if EXTENSION not in sample.parts:
        return sample
    parts = {OWN_JSON if name == EXTENSION else name: part for name, part in sample.parts.items()}
    return Sample(sample.key, parts, sample.meta, sample.scores)


def required_parts(parts: Sequence[str], optional: Sequence[str]) -> tuple[str, ...]:
    """Return the extensions that no sample may lack."""
    return tuple(name for name in parts if modality_of(name) not in optional)


def wanted_parts(
    num_with: Mapping[tuple[str, ...], int], optional: Sequence[str]
) -> tuple[str, ...]:
    """Return the most common parts: the required ones together, and each optional modality's.

    `num_with` says how many samples have each set of parts.
    """
    wanted = set(_commonest((required_parts(ns, optional), num) for ns, num in num_with.items()))
    for modality in sorted(set(optional)):
        of_modality = [
            (tuple(name for name in names if modality_of(name) == modality), num)
            for names, num in num_with.items()
        ]
        wanted |= set(_commonest(one for one in of_modality if one[0]))
    return tuple(sorted(wanted))


def _commonest(sets: Iterable[tuple[tuple[str, ...], int]]) -> tuple[str, ...]:
    counted: Counter[tuple[str, ...]] = Counter()
    for names, num in sets:
        counted[names] += num
    there = [names for names, num in counted.items() if num]
    return min(there, key=lambda names: (-counted[names], -len(names), names), default=())


def whole_first(numbers: Ints, lacks_nothing: Flags) -> Ints:
    """Put a few samples that lack nothing in front: from those, readers learn what parts are."""
    whole = np.flatnonzero(lacks_nothing[numbers])
    if len(whole) == len(numbers):
        return numbers
    front = whole[:_READ_BY_READERS]
    return np.concatenate([numbers[front], np.delete(numbers, front)])


def _equal_ranges(first: int, last: int, num_ranges: int) -> list[tuple[int, int]]:
    bounds = [first + (last - first) * i // max(num_ranges, 1) for i in range(num_ranges + 1)]
    return list(itertools.pairwise(bounds))


def shard_bounds(
    sizes: Sequence[int], samples_per_shard: int, max_shard_bytes: int
) -> list[tuple[int, int]]:
    """Return where shards of samples of these sizes begin and end."""
    fewest = max(-(-len(sizes) // samples_per_shard), -(-sum(sizes) // max_shard_bytes))
    step = -(-fewest // 8) or 1
    for num_shards in range(fewest, 2 * fewest + 1, step):
        ranges = _equal_ranges(0, len(sizes), min(num_shards, len(sizes)))
        if all(sum(sizes[first:last]) <= max_shard_bytes for first, last in ranges):
            return ranges
    ranges = _equal_ranges(0, len(sizes), min(fewest, len(sizes)))
    return [part for first, last in ranges for part in _halved(first, last, sizes, max_shard_bytes)]


def _halved(
    first: int, last: int, sizes: Sequence[int], max_shard_bytes: int
) -> list[tuple[int, int]]:
    if last - first == 1 or sum(sizes[first:last]) <= max_shard_bytes:
        return [(first, last)]
    return [
        bounds
        for half in _equal_ranges(first, last, 2)
        for bounds in _halved(*half, sizes, max_shard_bytes)
    ]
