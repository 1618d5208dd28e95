"""Which sample goes into which shard, and which into none: decided once, from keys alone.

The order inside a split is by hash, so neighbours in a shard are unrelated and the order in which
samples came in does not matter.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from mmcore.core.leaks import Known, Leak, leaks
from mmcore.core.near_limits import Limits
from mmcore.errors import AccountingError, IntegrityError, StepError
from mmcore.media.near.prints import without_prints
from mmcore.sample import Dropped, Json, Outcome, Part, PartRef, Quarantined, Sample, modality_of
from mmcore.shard.document import EXTENSION, Schema, document
from mmcore.shard.tar import BLOCK_BYTES, name_problem, padded

SPLITS = ("train", "val", "test")
NAME_RULE = "member_name"
PARTS_RULE = "same_parts"
_READ_BY_READERS = 5
"""Of the samples of a split, those from which Hugging Face's `datasets` infers its columns."""
OWN_JSON = "source.json"
"""What a sample's own `json` part is called in a shard, where `json` is what we know of it."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The samples of one shard, in order."""

    split: str
    number: int
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """Return its name as a task and as a file, without the extension: `train-000000`."""
        return f"{self.split}-{self.number:06d}"


def sift(
    samples: Iterable[Sample],
    *,
    declared: Sequence[str] = (),
    optional: Sequence[str] = (),
    may_be_empty: bool = False,
) -> tuple[list[Sample], list[tuple[str, Outcome]]]:
    """Return the samples that fit into one dataset, sorted by key, and the others with the reason.

    Readers take the parts of the first samples for the parts of all, so all have the same: those
    declared, or the most common set (of equals the largest, then the first by name). Parts of the
    modalities in `optional` may lack.
    """
    ordered = sorted(map(_renamed, samples), key=lambda sample: sample.key)
    _check_unique(ordered)
    _check_splits(ordered)
    left_out: list[tuple[str, Outcome]] = []
    named = []
    for sample in ordered:
        problem = _first_name_problem(sample)
        if problem is None:
            named.append(sample)
        else:
            left_out.append((NAME_RULE, Quarantined(sample, "member_name_unfit", problem)))
    wanted = tuple(sorted(declared)) or _most_common(named, optional)
    needed = set(required_parts(wanted, optional))
    fitting = []
    for sample in named:
        found = _part_set(sample)
        if needed <= set(found) <= set(wanted):
            fitting.append(sample)
        else:
            detail = f"has {', '.join(found) or 'no part'}; the dataset has {', '.join(wanted)}"
            left_out.append((PARTS_RULE, Dropped(sample, "parts_differ", detail)))
    if not fitting and not may_be_empty:
        raise StepError(
            f"no sample is left to shard: {len(ordered)} came in and {len(left_out)} do not fit. "
            f"The dataset's parts are {', '.join(wanted) or 'unknown'}; declare others, or look at "
            "why the steps before dropped so much."
        )
    return fitting, left_out


def cut(
    samples: Sequence[Sample],
    schema: Schema,
    *,
    samples_per_shard: int,
    max_shard_bytes: int,
    seed: int,
    num_before: Mapping[str, int] | None = None,
    parts: Sequence[str] | None = None,
) -> list[ShardPlan]:
    """Return the shards of every split that has samples, equal in number of samples to one.

    `num_before` counts the shards that a split has already: numbers go on from there. Where some
    samples lack some of `parts`, a shard begins with a few that have them all.

    Where a few large samples would not let equal shards keep to the byte limit, the shards that
    hold them are halved until they do, or hold one sample.
    """
    plans = []
    for split in SPLITS:
        members = [sample for sample in samples if sample.meta["split"] == split]
        members.sort(key=lambda sample: _position(sample.key, seed))
        members = _whole_first(members, parts)
        sizes = [_tar_bytes(sample, schema) for sample in members]
        bounds = _bounds(sizes, samples_per_shard, max_shard_bytes)
        for number, (first, last) in enumerate(bounds):
            number += (num_before or {}).get(split, 0)
            in_order = _whole_first(members[first:last], parts)
            plans.append(ShardPlan(split, number, tuple(in_order)))
    return plans


def refuse_leaks(
    samples: Iterable[Sample],
    together: Sequence[str],
    limits: Limits | None = None,
    known: Known | None = None,
) -> None:
    """Raise IntegrityError when something that must stay together lies in two splits."""
    refuse(leaks(samples, together, limits, known))


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


def _renamed(sample: Sample) -> Sample:
    if EXTENSION not in sample.parts:
        return sample
    parts = {OWN_JSON if name == EXTENSION else name: part for name, part in sample.parts.items()}
    return Sample(sample.key, parts, sample.meta, sample.scores)


def _check_unique(ordered: Sequence[Sample]) -> None:
    for before, after in itertools.pairwise(ordered):
        if before.key == after.key:
            raise AccountingError(
                f"two samples have the key {after.key!r}; keys are unique in a dataset, across all "
                "splits. Nothing was written. Make keys distinct where the data comes in."
            )


def _check_splits(ordered: Sequence[Sample]) -> None:
    for sample in ordered:
        if sample.meta.get("split") not in SPLITS:
            raise StepError(
                f"{sample.key}: meta has split {sample.meta.get('split')!r}, not one of "
                f"{', '.join(SPLITS)}. Put a split step before this one."
            )


def _first_name_problem(sample: Sample) -> str | None:
    problems = (name_problem(sample.key, name) for name in [*sorted(sample.parts), EXTENSION])
    return next((problem for problem in problems if problem is not None), None)


def _part_set(sample: Sample) -> tuple[str, ...]:
    return tuple(sorted(sample.parts))


def required_parts(parts: Sequence[str], optional: Sequence[str]) -> tuple[str, ...]:
    """Return the extensions that no sample may lack."""
    return tuple(name for name in parts if modality_of(name) not in optional)


def _most_common(samples: Sequence[Sample], optional: Sequence[str]) -> tuple[str, ...]:
    """Return the most common parts: the required ones together, and each optional modality's."""
    sets = [_part_set(sample) for sample in samples]
    wanted = set(_commonest(required_parts(names, optional) for names in sets))
    for modality in sorted(set(optional)):
        of_modality = (tuple(n for n in names if modality_of(n) == modality) for names in sets)
        wanted |= set(_commonest(names for names in of_modality if names))
    return tuple(sorted(wanted))


def _commonest(sets: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    counted = Counter(sets)
    return min(counted, key=lambda names: (-counted[names], -len(names), names), default=())


def _whole_first(samples: Sequence[Sample], parts: Sequence[str] | None) -> list[Sample]:
    """Put a few samples that lack nothing in front: from those, readers learn what parts are."""
    whole = [
        i for i, sample in enumerate(samples) if parts is None or len(sample.parts) == len(parts)
    ]
    if len(whole) == len(samples):
        return list(samples)
    front = whole[:_READ_BY_READERS]
    return [samples[i] for i in front] + [s for i, s in enumerate(samples) if i not in front]


def _position(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()


def _tar_bytes(sample: Sample, schema: Schema) -> int:
    lengths = [len(document(sample, schema))]
    lengths += [part.ref.num_bytes for part in sample.parts.values() if part.ref is not None]
    return sum(BLOCK_BYTES + padded(length) for length in lengths)


def _equal_ranges(first: int, last: int, num_ranges: int) -> list[tuple[int, int]]:
    bounds = [first + (last - first) * i // max(num_ranges, 1) for i in range(num_ranges + 1)]
    return list(itertools.pairwise(bounds))


def _bounds(
    sizes: Sequence[int], samples_per_shard: int, max_shard_bytes: int
) -> list[tuple[int, int]]:
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
