import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from mmcore.core.leaks import leaks
from mmcore.errors import AccountingError, IntegrityError, StepError
from mmcore.sample import Part, PartRef, Sample
from mmcore.shard.plan import from_payload, refuse, to_payload
from mmcore.shard.roster import LeftOut, Roster

MakeSample = Callable[..., Sample]


def referenced(key: str, num_bytes: int = 100, split: str = "train", **parts: str) -> Sample:
    names = parts or {"png": "1"}
    refs = {
        name: Part(ref=PartRef("encode", "part.bin", 0, num_bytes, value))
        for name, value in names.items()
    }
    return Sample(key, refs, {"split": split})


def roster_of(samples: Iterable[Sample], seed: int = 0) -> Roster:
    roster = Roster(seed=seed)
    for sample in samples:
        roster.add(sample)
    return roster


def sift(samples: Iterable[Sample], **options: Any) -> tuple[list[Sample], list[LeftOut]]:
    roster = roster_of(samples)
    left_out = roster.sift(**options)
    return sorted(roster.fitting(), key=lambda sample: sample.key), left_out


def cut(samples: Iterable[Sample], seed: int = 0, **options: Any) -> dict[str, list[Sample]]:
    """Return the samples of each shard by its name."""
    roster = roster_of(samples, seed)
    roster.sift(optional=("audio",))
    plans = roster.cut(
        roster.schema(), **{"samples_per_shard": 10, "max_shard_bytes": 2**20, **options}
    )
    return {plan.name: [roster.sample(one) for one in plan.samples.tolist()] for plan in plans}


def shards_of(samples: list[Sample], **options: Any) -> list[list[str]]:
    return [[sample.key for sample in shard] for shard in cut(samples, **options).values()]


def test_shards_differ_by_at_most_one_sample() -> None:
    sizes = [len(keys) for keys in shards_of([referenced(f"k{i}") for i in range(43)])]
    assert sorted(sizes) == [8, 8, 9, 9, 9]


def test_neighbours_in_a_shard_are_shuffled_the_same_way_from_any_order() -> None:
    samples = [referenced(f"k{i:02d}") for i in range(43)]
    shards = shards_of(samples)
    assert shards == shards_of(random.Random(1).sample(samples, k=43))
    assert shards != shards_of(samples, seed=1)
    flat = [key for keys in shards for key in keys]
    assert sorted(flat) == [s.key for s in samples] != flat


def test_split_without_samples_has_no_shard() -> None:
    samples = [referenced(f"k{i}", split="test" if i % 3 else "train") for i in range(9)]
    shards = cut(samples, samples_per_shard=4)
    assert list(shards) == ["train-000000", "test-000000", "test-000001"]


def test_byte_limit_makes_more_shards() -> None:
    samples = [referenced(f"k{i}", num_bytes=4096) for i in range(10)]
    assert [len(keys) for keys in shards_of(samples, max_shard_bytes=16 * 1024)] == [2] * 5


def test_sample_over_the_byte_limit_lies_alone_and_the_others_do_not() -> None:
    samples = [*(referenced(f"k{i}") for i in range(15)), referenced("big", num_bytes=2**21)]
    shards = shards_of(samples)
    assert ["big"] in shards
    assert len(shards) < 8


def test_parts_that_differ_are_dropped_with_both_sets() -> None:
    samples = [referenced("a", png="1", txt="2"), referenced("b", png="1", txt="3")]
    fitting, left_out = sift([referenced("c", png="1"), *samples])
    assert [sample.key for sample in fitting] == ["a", "b"]
    (one,) = left_out
    assert (one.rule, one.is_broken, one.reason) == ("same_parts", False, "parts_differ")
    assert one.detail == "has png; the dataset has png, txt"


def test_of_equally_common_part_sets_the_larger_wins() -> None:
    samples = [referenced("a", png="1"), referenced("b", png="1", txt="3")]
    for order in (samples, samples[::-1]):
        assert [sample.key for sample in sift(order)[0]] == ["b"]


def test_declared_parts_win_over_common_ones() -> None:
    samples = [*(referenced(f"k{i}", png="1") for i in range(5)), referenced("z", txt="1", png="1")]
    fitting, left_out = sift(samples, declared=("txt", "png"))
    assert [sample.key for sample in fitting] == ["z"]
    assert Counter(one.reason for one in left_out) == {"parts_differ": 5}


def test_optional_parts_may_lack_and_others_may_not() -> None:
    samples = [
        referenced("a", txt="1", png="2", wav="3"),
        referenced("b", txt="1", png="2"),
        referenced("c", txt="1", wav="3"),
        referenced("d", txt="1", png="2", flac="3"),
        referenced("e", txt="1", png="2", wav="3"),
    ]
    fitting, left_out = sift(samples, optional=("audio",))
    assert [sample.key for sample in fitting] == ["a", "b", "e"]
    assert [(one.key, one.reason) for one in left_out] == [
        ("c", "parts_differ"),
        ("d", "parts_differ"),
    ]


def test_optional_parts_are_those_that_most_samples_with_any_have() -> None:
    samples = [
        referenced("a", txt="1"),
        referenced("b", txt="1"),
        referenced("c", txt="1", wav="2"),
    ]
    assert len(sift(samples, optional=("audio",))[0]) == 3
    assert len(sift(samples, optional=("audio",), declared=("txt",))[0]) == 2


def test_shards_begin_with_samples_that_lack_nothing() -> None:
    whole = [referenced(f"w{i}", txt="1", wav="2") for i in range(12)]
    lacking = [referenced(f"l{i}", txt="1") for i in range(40)]
    samples = [*lacking, *whole]
    shards = list(cut(samples).values())
    assert len(shards) > 2
    assert [len(sample.parts) for sample in shards[0][:5]] == [2] * 5
    for shard in shards:
        sizes = [len(sample.parts) for sample in shard]
        num_whole = min(5, sizes.count(2))
        assert sizes[:num_whole] == [2] * num_whole
    assert sorted(s.key for shard in shards for s in shard) == sorted(
        s.key for s in [*lacking, *whole]
    )


def test_name_that_is_too_long_is_quarantined() -> None:
    fitting, left_out = sift([referenced("a"), referenced("k" * 96)])
    assert [sample.key for sample in fitting] == ["a"]
    (one,) = left_out
    assert (one.rule, one.is_broken) == ("member_name", True)
    assert one.reason == "member_name_unfit"


def test_name_of_the_json_part_counts_too() -> None:
    # 94 + len(".png") fits into 99 bytes; 95 + len(".json") does not
    fitting, left_out = sift([referenced("a"), referenced("k" * 95)])
    assert [sample.key for sample in fitting] == ["a"]
    assert len(left_out) == 1


def test_json_part_of_a_sample_gets_another_name() -> None:
    fitting, _ = sift([referenced("a", json="1", png="2")])
    assert sorted(fitting[0].parts) == ["png", "source.json"]


def test_duplicate_key_is_an_error() -> None:
    with pytest.raises(AccountingError, match="'a'"):
        sift([referenced("a"), referenced("b"), referenced("a", split="test")])


def test_sample_without_a_split_is_an_error() -> None:
    with pytest.raises(StepError, match="Put a split step before"):
        sift([Sample("a", referenced("a").parts)])


def test_nothing_left_is_an_error() -> None:
    for samples in ([], [referenced("a b")]):
        with pytest.raises(StepError, match="no sample is left"):
            sift(samples)


def test_leak_is_refused_with_both_samples() -> None:
    samples = [referenced("a", png="1"), referenced("b", png="1", split="test")]
    refuse(leaks(samples, ("text",)))
    with pytest.raises(IntegrityError, match="b in test, a in train"):
        refuse(leaks(samples, ("image",)))


def test_payload_brings_the_sample_back(make_sample: MakeSample) -> None:
    sample = referenced("a", png="1", txt="2").with_meta(n=1, tags=["x"]).with_scores(s=0.5)
    assert from_payload(to_payload(sample)) == sample
