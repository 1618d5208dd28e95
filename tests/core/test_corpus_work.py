from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from corpus_rule import Growing

from mmcore.core.columns import Corpus, Flags, Ints, Values, Want
from mmcore.core.corpus_work import outcomes
from mmcore.core.manifest import FileRecord
from mmcore.core.rows import Row
from mmcore.core.shelf import Shelf
from mmcore.core.stage import CorpusRule, Verdict
from mmcore.dedup.exact import ExactDuplicates
from mmcore.dedup.near import NearDuplicates
from mmcore.dedup.split import GroupSplit
from mmcore.media.near.prints import with_print
from mmcore.sample import Dropped, Part, Sample

SPLIT = GroupSplit(together=("image",), max_distance={"image": 3})
RULES = (ExactDuplicates(same=("image",)), NearDuplicates(max_distance={"image": 3}), SPLIT)


def sample(number: int, *, image: int, look: int) -> Sample:
    made = Sample(f"k{number:03d}", {"png": Part(data=str(image).encode())})
    rest = bytes(range(256)) + bytes(32)
    return with_print(made, "image", look.to_bytes(8, "big") + rest)


def corpus(first: int, num: int) -> list[Sample]:
    """Of five samples one is an exact twin of the one before, and one is near it."""
    samples = []
    for number in range(first, first + num):
        original = number - number % 5 if number % 5 < 3 else number
        look = (original * 0x9E3779B97F4A7C15) % 2**64
        samples.append(
            sample(number, image=number - (number % 5 == 1), look=look ^ (number % 5 == 2))
        )
    return samples


def test_rules_follow_each_other_and_each_row_names_the_one_that_decided(tmp_path: Path) -> None:
    rows = Growing(tmp_path, *RULES).add(corpus(0, 20), num_files=3)
    assert {key: row.rule for key, row in rows.items() if row.status == "dropped"} == {
        **{f"k{i:03d}": "exact_duplicates" for i in (1, 6, 11, 16)},
        **{f"k{i:03d}": "near_duplicates" for i in (2, 7, 12, 17)},
    }
    kept = [row for row in rows.values() if row.status == "kept"]
    assert {row.rule for row in kept} == {""}
    assert all(row.sample.meta["split_group"] == row.sample.key for row in kept)


def decision(row: Row) -> tuple[object, ...]:
    """What was decided, wherever the bytes lie."""
    return (row.status, row.reason, row.detail, row.rule, row.twin, row.sample.meta)


def files_of(growing: Growing, number: int) -> tuple[FileRecord, ...]:
    return tuple(sorted(growing.made[number].manifest.files, key=lambda file: file.path))


def test_the_order_of_samples_within_their_files_changes_no_decision(tmp_path: Path) -> None:
    first, second = Growing(tmp_path / "a", *RULES), Growing(tmp_path / "b", *RULES)
    for start, num in ((0, 40), (40, 15)):
        samples = corpus(start, num)
        forward = first.add(samples, num_files=3)
        backward = second.add(samples[::-1], num_files=5)
        assert {key: decision(row) for key, row in forward.items()} == {
            key: decision(row) for key, row in backward.items()
        }
    known = [
        [file for file in files_of(one, 1) if file.path.startswith("known/")]
        for one in (first, second)
    ]
    assert known[0] == known[1]
    assert len(known[0]) > 10


def test_what_a_later_rule_dropped_is_not_known(tmp_path: Path) -> None:
    growing = Growing(tmp_path, *RULES)
    growing.add([sample(0, image=0, look=0), sample(1, image=1, look=1)])
    rows = growing.add([sample(2, image=1, look=0xFFFF)])
    # k001 was near k000 and is gone: its bytes are nobody's
    assert rows["k002"].status == "kept"


def test_an_increment_reads_no_row_of_those_before(tmp_path: Path) -> None:
    growing = Growing(tmp_path, *RULES)
    growing.add(corpus(0, 20))
    for path in Path(growing.made[0].url).glob("*.parquet"):
        path.unlink()
    rows = growing.add([sample(100, image=3, look=5), sample(101, image=101, look=0)])
    assert rows["k100"].twin == "k003"
    assert rows["k101"].twin == "k000"


@pytest.mark.parametrize("reason", ["changed", "removed", "forgotten"])
def test_nobody_is_dropped_as_the_twin_of_a_sample_that_is_gone(
    tmp_path: Path, reason: str
) -> None:
    growing = Growing(tmp_path, *RULES)
    growing.add([sample(i, image=i, look=0xFF << 8 * i) for i in range(3)])
    rows = growing.add(
        [
            sample(10, image=0, look=0xF0F0),
            sample(11, image=11, look=0xFF << 8),
            sample(12, image=2, look=0),
        ],
        gone={"k000": reason, "k001": reason},
    )
    assert {key: (row.status, row.twin) for key, row in rows.items()} == {
        "k010": ("kept", ""),
        "k011": ("kept", ""),
        "k012": ("dropped", "k002"),
    }
    # and those newcomers are known from then on
    rows = growing.add([sample(20, image=0, look=1), sample(21, image=21, look=0xFF00)])
    assert {key: row.twin for key, row in rows.items()} == {"k020": "k010", "k021": "k011"}


def test_an_increment_of_nothing_but_removals_is_obeyed_later(tmp_path: Path) -> None:
    growing = Growing(tmp_path, *RULES)
    growing.add([sample(0, image=0, look=0), sample(1, image=1, look=0xFFFF)])
    growing.add([], gone={"k000": "removed"})
    rows = growing.add([sample(2, image=0, look=0), sample(3, image=1, look=0xFFFF)])
    assert {key: row.twin for key, row in rows.items()} == {"k002": "", "k003": "k001"}


def test_what_if_decides_as_a_step_does(tmp_path: Path) -> None:
    samples = corpus(0, 30)
    rows = Growing(tmp_path, *RULES).add(samples)
    for before, (rule, outcome) in zip(samples, outcomes(RULES, samples), strict=True):
        row = rows[before.key]
        if isinstance(outcome, Dropped):
            assert (row.rule, row.reason, row.twin) == (rule, outcome.reason, outcome.twin)
        else:
            assert row.status == "kept"


@dataclass(frozen=True)
class Everyone:
    """Keeps all."""

    num_rows: int

    @property
    def kept(self) -> Flags:
        return np.ones(self.num_rows, bool)

    def outcome(self, row: int, sample: Sample) -> Sample:
        return sample


@dataclass(frozen=True, kw_only=True)
class Counts(CorpusRule):
    """Remembers how many there were."""

    def wants(self) -> tuple[Want, ...]:
        return (Values("image"),)

    def decide(self, corpus: Corpus, shelf: Shelf) -> Verdict:
        before: Ints = shelf.load("total") if "total" in shelf.names else np.zeros(1, np.int64)
        shelf.save("total", np.asarray(before) + corpus.num_rows)
        return Everyone(corpus.num_rows)


def test_a_rule_of_ones_own_keeps_arrays_for_the_next_increment(tmp_path: Path) -> None:
    growing = Growing(tmp_path, Counts())
    for num in (5, 3, 4):
        growing.add([Sample(f"{len(growing.made)}-{i}") for i in range(num)])
    totals = [int(np.load(Path(made.url, "known/0-counts/total.npy"))[0]) for made in growing.made]
    assert totals == [5, 8, 12]


def test_no_samples_are_no_error(tmp_path: Path) -> None:
    growing = Growing(tmp_path, *RULES)
    assert growing.add([]) == {}
    assert len(growing.add(corpus(0, 10))) == 10
    assert growing.add([]) == {}
    assert growing.add([sample(77, image=0, look=1)])["k077"].twin == "k000"


@pytest.mark.parametrize("num_rules", [1, 2, 3])
def test_counts_add_up_with_any_number_of_rules(tmp_path: Path, num_rules: int) -> None:
    growing = Growing(tmp_path, *RULES[:num_rules])
    growing.add(corpus(0, 50), num_files=4)
    growing.made[0].manifest.counts.check("dedup")
    assert growing.made[0].manifest.counts.found == 50
