import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from corpus_rule import Growing, decided
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_split import ReferenceSplit

from mmcore.core.leaks import leaks
from mmcore.dedup.split import GroupSplit
from mmcore.errors import ConfigError
from mmcore.sample import Dropped, Part, Sample


def sample(key: str, image: str = "", **meta: str) -> Sample:
    return Sample(key, {"png": Part(data=image.encode())} if image else {}, meta)


def split(rule: GroupSplit, samples: Sequence[Sample]) -> dict[str, Sample]:
    done = [outcome for outcome in decided(rule, samples) if isinstance(outcome, Sample)]
    assert len(done) == len(samples)
    return {sample.key: sample for sample in done}


def test_chain_of_links_stays_together() -> None:
    rule = GroupSplit(together=("image", "meta:caption"))
    samples = [
        sample("a", "1", caption="cat"),
        sample("b", "1", caption="dog"),
        sample("c", "2", caption="dog"),
        sample("d", "3", caption="cow"),
    ]
    groups = {key: s.meta["split_group"] for key, s in split(rule, samples).items()}
    assert groups == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_link_found_last_joins_two_groups() -> None:
    rule = GroupSplit(together=("image", "meta:caption"))
    samples = [
        sample("a", "1", caption="x"),
        sample("b", "2", caption="y"),
        sample("c", "1", caption="y"),
    ]
    assert {s.meta["split_group"] for s in split(rule, samples).values()} == {"a"}


def test_missing_and_empty_values_link_nothing() -> None:
    rule = GroupSplit(together=("image", "meta:caption"))
    done = split(rule, [sample("a", caption=""), sample("b", caption=""), sample("c")])
    assert [s.meta["split_group"] for s in done.values()] == ["a", "b", "c"]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40),
    seed=st.integers(0, 5),
    stratify=st.sampled_from(["", "meta:label"]),
)
def test_nothing_leaks_and_order_does_not_matter(
    values: list[tuple[int, int]], seed: int, stratify: str
) -> None:
    samples = [
        sample(f"k{i:02d}", str(image), caption=str(caption), label=str(i % 3))
        for i, (image, caption) in enumerate(values)
    ]
    rule = GroupSplit(together=("image", "meta:caption"), seed=seed, stratify=stratify)
    done = split(rule, samples)
    assert leaks(done.values(), rule.together) == []
    shuffled = random.Random(seed).sample(samples, k=len(samples))
    assert split(rule, shuffled) == done


def test_fractions_are_met_over_many_groups() -> None:
    samples = [sample(f"k{i:04d}") for i in range(4000)]
    done = split(GroupSplit(together=("image",), seed=3), samples)
    found = Counter(str(s.meta["split"]) for s in done.values())
    for name, fraction in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        assert abs(found[name] / 4000 - fraction) < 0.03


def test_stratified_fractions_are_met_within_each_class() -> None:
    samples = [sample(f"k{i:03d}", label="rare" if i < 10 else "common") for i in range(110)]
    done = split(GroupSplit(together=("image",), stratify="meta:label"), samples)
    found = Counter((s.meta["label"], s.meta["split"]) for s in done.values())
    assert found == {
        ("rare", "train"): 7,
        ("rare", "val"): 1,
        ("rare", "test"): 2,
        ("common", "train"): 70,
        ("common", "val"): 10,
        ("common", "test"): 20,
    }


def test_stratified_group_that_spans_classes_stays_whole() -> None:
    samples = [sample(f"k{i:02d}", str(i // 4), label="ab"[i % 2]) for i in range(40)]
    done = split(GroupSplit(together=("image",), stratify="meta:label"), samples)
    assert leaks(done.values(), ("image",)) == []
    assert Counter(str(s.meta["split"]) for s in done.values())["train"] == 28


@pytest.mark.parametrize("stratify", ["", "meta:label"])
def test_seed_decides(stratify: str) -> None:
    samples = [sample(f"k{i:02d}", label="x") for i in range(60)]
    rules = [GroupSplit(together=("image",), seed=n, stratify=stratify) for n in (1, 1, 2)]
    one, again, two = (
        {key: done.meta["split"] for key, done in split(rule, samples).items()} for rule in rules
    )
    assert one == again != two


def test_new_unlinked_samples_leave_the_old_ones_where_they_were() -> None:
    rule = GroupSplit(together=("image",))
    old = [sample(f"k{i:02d}") for i in range(40)]
    before = split(rule, old)
    after = split(rule, [*old, *(sample(f"a{i:02d}") for i in range(40))])
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("stratify", ["", "meta:label"])
def test_fractions_may_leave_a_split_out(stratify: str) -> None:
    fractions = {"train": 0.5, "test": 0.5}
    rule = GroupSplit(together=("image",), fractions=fractions, stratify=stratify)
    done = split(rule, [sample(f"k{i:02d}", label="x") for i in range(50)])
    assert {s.meta["split"] for s in done.values()} == {"train", "test"}


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.7, "test": 0.2}, "sum to 0.9"),
        ({"train": 0.9, "dev": 0.1}, "names dev"),
        ({"train": 1.2, "test": -0.2}, "not above 0"),
        ({}, "sum to 0"),
    ],
)
def test_wrong_fractions_are_a_config_error(fractions: Mapping[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GroupSplit(together=("image",), fractions=fractions)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2), st.integers(0, 2)),
        min_size=1,
        max_size=36,
    ),
    names=st.randoms(use_true_random=False),
    seed=st.integers(0, 3),
    stratify=st.sampled_from(["", "meta:label"]),
    fractions=st.sampled_from(
        [{"train": 0.7, "val": 0.1, "test": 0.2}, {"train": 0.5, "test": 0.5}]
    ),
)
def test_increments_are_split_as_union_find_over_everything_would(
    values: list[tuple[int, int, int, int]],
    names: random.Random,
    seed: int,
    stratify: str,
    fractions: Mapping[str, float],
) -> None:
    keys = [f"k{i:02d}" for i in range(len(values))]
    names.shuffle(keys)
    fields = {"together": ("image", "meta:caption"), "seed": seed, "stratify": stratify}
    reference = ReferenceSplit(**fields, fractions=fractions)
    known: list[Sample] = []
    with tempfile.TemporaryDirectory() as directory:
        growing = Growing(Path(directory), GroupSplit(**fields, fractions=fractions))
        for increment in range(3):
            arrived = [
                sample(
                    key, str(image) if image else "", caption=str(caption or ""), label=str(label)
                )
                for key, (image, caption, label, when) in zip(keys, values, strict=True)
                if when == increment
            ]
            rows = growing.add(arrived, num_files=2)
            expected = list(reference.decide(arrived, known))
            for outcome in expected:
                if isinstance(outcome, Sample):
                    row = rows[outcome.key]
                    assert (row.status, dict(row.sample.meta)) == ("kept", outcome.meta)
                    known.append(outcome)
                else:
                    assert isinstance(outcome, Dropped)
                    row = rows[outcome.sample.key]
                    assert (row.reason, row.detail) == (outcome.reason, outcome.detail)


def test_leak_says_what_is_equal_and_where() -> None:
    one = sample("a", "1", caption="cat", split="train")
    two = sample("b", "2", caption="cat", split="test")
    three = sample("c", "2", caption="dog", split="test")
    (leak,) = leaks([one, two, three], ("image", "meta:caption"))
    assert (leak.name, leak.value) == ("meta:caption", "cat")
    assert leak.keys == (("test", "b"), ("train", "a"))


def test_no_samples_give_no_outcomes() -> None:
    for stratify in ("", "meta:label"):
        assert decided(GroupSplit(together=("image",), stratify=stratify), []) == []
