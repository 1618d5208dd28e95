"""Samples that became equal when they were encoded: two files of one sound, say, in two splits.

No split can know of it, which looks at what came in. So the one that was there before stays, else
the one with the lowest key, and those like it in other splits go into no shard. Whatever else lies
on both sides is a leak.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from mmcore.core.leaks import Leak, LeakCheck
from mmcore.core.linkage import values_of
from mmcore.sample import MODALITIES, Sample, modality_of
from mmcore.shard.earlier import Earlier
from mmcore.shard.plan import refuse
from mmcore.shard.roster import LeftOut, Roster

RULE = "twins"
REASON = "equal_after_encoding"


def without_twins(check: LeakCheck, roster: Roster) -> list[LeftOut]:
    """Take out of a roster what became equal to a sample of another split, and return it.

    IntegrityError when anything else lies in two splits.
    """
    left_out = []
    # each look tells of one sample per split and value, and there may be more like it
    while found := check.leaks(roster.fitting, roster.fits):
        for leak in found:
            twins = {key: roster.find(key) for _, key in leak.keys}
            samples = [roster.sample(one) for one in twins.values() if one is not None]
            if len(samples) != len(twins) or not _became_equal(leak, samples):
                refuse(found)
            stays, *others = sorted(leak.keys, key=lambda one: one[1])
            for _, key in others:
                number = twins[key]
                assert number is not None, "all were found"
                if roster.fits[number]:
                    roster.fits[number] = False
                    detail = f"its {leak.name} is that of {stays[1]} in {stays[0]}"
                    left_out.append(LeftOut(RULE, key, number, False, REASON, detail))
    return sorted(left_out, key=lambda one: one.key)


def without_twins_of_old(before: Earlier, roster: Roster, together: Sequence[str]) -> list[LeftOut]:
    """Take out of a roster what became equal to an old sample of another split, and return it.

    What lies in two splits for another reason is left to the check for leaks.
    """
    modalities = [name for name in together if name in MODALITIES]
    newcomers: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number in np.flatnonzero(roster.fits).tolist() if modalities else ():
        sample = roster.sample(number)
        for name in modalities:
            for digest in values_of(sample, name):
                newcomers[digest].append((number, name))
    left_out: dict[int, LeftOut] = {}
    for old in sorted(before.with_parts(newcomers.keys()), key=lambda one: one.key):
        of_old = old.as_sample(base="")
        for digest in (part.sha256 for part in old.parts):
            for number, name in newcomers.get(digest, ()):
                sample = roster.sample(number)
                split = str(sample.meta["split"])
                leak = Leak(name, digest, ((old.split, old.key), (split, sample.key)))
                if split != old.split and _became_equal(leak, [of_old, sample]):
                    detail = f"its {name} is that of {old.key} in {old.split}, which was there"
                    one = LeftOut(RULE, sample.key, number, False, REASON, detail)
                    left_out.setdefault(number, one)
    roster.fits[list(left_out)] = False
    return sorted(left_out.values(), key=lambda one: one.key)


def _became_equal(leak: Leak, samples: Sequence[Sample]) -> bool:
    """Return whether samples that share a part were made of different files."""
    if leak.name not in MODALITIES or not all(
        leak.value in values_of(sample, leak.name) for sample in samples
    ):
        return False  # something else is equal, or they are near
    files = [_files(sample, leak.name) for sample in samples]
    return all(files) and all(one.isdisjoint(other) for one, other in combinations(files, 2))


def _files(sample: Sample, modality: str) -> set[str]:
    """Return the digests of the files that the parts of a modality were made of."""
    known = sample.meta.get("original_sha256")
    if not isinstance(known, dict):
        return set()
    return {str(digest) for name, digest in known.items() if modality_of(name) == modality}
