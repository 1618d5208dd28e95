import pickle
import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from corpus_rule import Growing, decided
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_split import ReferenceSplit

from mmcore.core.corpus_work import known_shelf, knows_one
from mmcore.core.leaks import leaks
from mmcore.core.near_limits import Limits
from mmcore.core.rows import Row
from mmcore.core.sorted_runs import SortedRuns
from mmcore.dedup.split import GroupSplit
from mmcore.errors import ConfigError
from mmcore.media.near.prints import with_print
from mmcore.sample import Dropped, Part, Sample, sha256_hex


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


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


def look(key: str, bits: int, **meta: str) -> Sample:
    """A picture of a perceptual hash of our choice, and of bytes of its own."""
    rest = bytes(range(256)) + bytes(32)
    made = Sample(key, {"png": Part(data=key.encode())}, meta)
    return with_print(made, "image", bits.to_bytes(8, "big") + rest)


NEAR = GroupSplit(together=("image",), max_distance={"image": 2}, seed=1)


def test_near_samples_share_a_group_and_so_do_the_near_ones_of_near_ones() -> None:
    done = split(NEAR, [look("c", 0b11), look("a", 0), look("b", 0b1111), look("d", 0xFF00)])
    assert {key: s.meta["split_group"] for key, s in done.items()} == {
        "a": "a",
        "b": "a",
        "c": "a",
        "d": "d",
    }


def in_split(samples: Mapping[str, Sample], wanted: str) -> str:
    return next(key for key, one in samples.items() if one.meta["split"] == wanted)


def test_a_newcomer_joins_what_it_is_near_to_and_of_two_splits_it_joins_neither(
    tmp_path: Path,
) -> None:
    growing = Growing(tmp_path, NEAR)
    # far from each other: 16 bits at least
    bits = [int.from_bytes(bytes([(i * 37 + j) % 256 for j in range(8)])) for i in range(30)]
    old = {
        key: row.sample
        for key, row in growing.add(
            [look(f"k{i:02d}", value) for i, value in enumerate(bits)]
        ).items()
    }
    train, test = (in_split(old, name) for name in ("train", "test"))
    of = {f"k{i:02d}": value for i, value in enumerate(bits)}
    rows = growing.add(
        [
            look("n-train", of[train] ^ 1),
            look("n-test", of[test] ^ 1),
            look("n-b", of[train] ^ 2),
        ]
    )
    assert rows["n-train"].sample.meta["split"] == rows["n-b"].sample.meta["split"] == "train"
    assert rows["n-train"].sample.meta["split_group"] == train
    assert rows["n-test"].sample.meta["split"] == "test"
    # near the one, near the other, and linked by their bytes
    bridge = [look("z-b", of[train] ^ 4), look("z-c", of[test] ^ 4)]
    bridge = [Sample(one.key, {"png": Part(data=b"the same bytes")}, one.meta) for one in bridge]
    rows = growing.add([*bridge, look("alone", 0xAAAA_5555_AAAA_5555)])
    assert {rows[key].reason for key in ("z-b", "z-c")} == {"twins_in_two_splits"}
    assert rows["z-b"].detail == f"linked to {test} in test, {train} in train"
    assert rows["alone"].status == "kept"


def test_two_groups_that_a_newcomer_bridged_are_one_from_then_on(tmp_path: Path) -> None:
    rule = GroupSplit(together=("image", "meta:caption"), fractions={"train": 1.0})
    growing = Growing(tmp_path, rule)
    growing.add([sample("m", "1", caption="cat"), sample("n", "2", caption="dog")])
    growing.add([sample("z", "1", caption="dog")])
    rows = growing.add([sample("y", "2", caption="cow"), sample("a", "3", caption="cow")])
    assert {row.sample.meta["split_group"] for row in rows.values()} == {"m"}
    # a sorts before m, and is what the group is known by among the groups that are one
    rows = growing.add([sample("b", "9", caption="dog")])
    assert rows["b"].sample.meta["split_group"] == "m"


def test_of_groups_that_become_one_the_lowest_key_decides_which_is_joined(tmp_path: Path) -> None:
    rule = GroupSplit(together=("image", "meta:caption"), fractions={"train": 1.0})
    growing = Growing(tmp_path, rule)
    growing.add([sample("m", "1", caption="cat"), sample("n", "2", caption="dog")])
    rows = growing.add([sample("a", "2", caption="owl")])
    assert rows["a"].sample.meta["split_group"] == "n"
    # the group n has the lower key by now
    rows = growing.add([sample("z", "1", caption="dog")])
    assert rows["z"].sample.meta["split_group"] == "n"


def listed(directory: Path, *lines: str) -> str:
    file = directory / "held_out.txt"
    file.write_text("\n".join(lines))
    return str(file)


@pytest.mark.parametrize("stratify", ["", "meta:label"])
def test_what_is_held_out_is_not_trained_on_nor_is_what_is_linked_to_it(
    tmp_path: Path, stratify: str
) -> None:
    samples = [sample(f"k{i:02d}", str(i // 2), label="x") for i in range(60)]
    before = split(GroupSplit(together=("image",), stratify=stratify), samples)
    in_train = [key for key, one in before.items() if one.meta["split"] == "train"]
    by_key, by_hash = in_train[0], in_train[-1]
    sha256 = sha256_hex(samples[int(by_hash[1:])].data("png")).upper()
    path = listed(tmp_path, "# benchmarks", "", by_key, f"{sha256}  # a picture")
    rule = GroupSplit(together=("image",), stratify=stratify, held_out=path)
    done = split(rule, samples)
    for key in (by_key, by_hash):
        group = before[key].meta["split_group"]
        members = [one for one in done.values() if one.meta["split_group"] == group]
        assert [one.meta["split"] for one in members] == ["test", "test"]
    found = Counter(str(one.meta["split"]) for one in done.values())
    if stratify:
        # they count for the split that they were given
        assert found == {"train": 42, "val": 6, "test": 12}
    else:
        moved = {key for key in done if done[key].meta["split"] != before[key].meta["split"]}
        assert len(moved) == 4


def test_a_newcomer_that_is_held_out_and_linked_to_training_is_dropped(tmp_path: Path) -> None:
    fractions = {"train": 0.999, "val": 0.001}
    path = listed(tmp_path, "exam", "quiz")
    rule = GroupSplit(together=("image",), fractions=fractions, held_out=path)
    growing = Growing(tmp_path, rule)
    growing.add([sample("a", "1"), sample("b", "2")])
    rows = growing.add([sample("exam", "1"), sample("other", "1"), sample("quiz", "7")])
    reasons = {key: row.reason for key, row in rows.items()}
    assert reasons == {
        "exam": "held_out_twin_in_train",
        "other": "held_out_twin_in_train",
        "quiz": "",
    }
    assert rows["quiz"].sample.meta["split"] == "val"
    assert "a in train" in rows["exam"].detail


def test_a_folder_of_files_is_held_out_by_content(tmp_path: Path) -> None:
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "any-name.png").write_bytes(b"7")
    fractions = {"train": 0.999, "test": 0.001}
    held_out = str(tmp_path / "benchmark")
    rule = GroupSplit(together=("image",), fractions=fractions, held_out=held_out)
    done = split(rule, [sample(f"k{i}", str(i)) for i in range(9)])
    assert [key for key, one in done.items() if one.meta["split"] == "test"] == ["k7"]


def test_the_names_on_the_list_are_identity_and_its_place_is_not(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one = GroupSplit(together=("image",), held_out=listed(tmp_path, "x", "y"))
    same = GroupSplit(together=("image",), held_out=listed(tmp_path / "b", "y", "# new", "x"))
    other = GroupSplit(together=("image",), held_out=listed(tmp_path, "x", "z"))
    assert one.identity() == same.identity() != other.identity()
    assert pickle.loads(pickle.dumps(same)).identity() == same.identity()


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"held_out": "/no/such/list"}, "not there or names nothing"),
        ({"held_out": __file__, "fractions": {"train": 1.0}}, "needs a split"),
        ({"max_distance": {"image": 13}}, r"group_split\.max_distance"),
        ({"min_similarity": {"image": 0.5}}, r"group_split\.min_similarity"),
    ],
)
def test_limits_and_lists_that_mean_nothing_are_config_errors(fields: dict, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        GroupSplit(together=("image",), **fields)


def test_near_samples_on_two_sides_are_leaks() -> None:
    samples = [
        look("a", 0, split="train"),
        look("b", 1, split="test"),
        look("c", 0, split="test"),
        look("d", 0xFF00, split="val"),
        look("e", 0xFF01, split="val"),
    ]
    found = leaks(samples, ("image",), Limits({"image": 2}, {}))
    assert {(leak.name, leak.value, leak.keys) for leak in found} == {
        ("image", "1 of 64 bits", (("test", "b"), ("train", "a"))),
        ("image", "0 of 64 bits", (("test", "c"), ("train", "a"))),
    }
    assert leaks(samples, ("image",)) == []


def test_near_leaks_to_what_is_known_of_old_are_found(tmp_path: Path) -> None:
    growing = Growing(tmp_path, NEAR)
    (row,) = growing.add([look("a", 0)]).values()
    known = partial(SortedRuns, known_shelf(growing.made[0]))
    split_of_a = str(row.sample.meta["split"])
    (other,) = {"train", "test"} - {split_of_a}
    limits = Limits({"image": 2}, {})
    assert leaks([look("n", 1, split=split_of_a)], ("image",), limits, known) == []
    (leak,) = leaks([look("n", 1, split=other)], ("image",), limits, known)
    assert set(leak.keys) == {(split_of_a, "a"), (other, "n")}


def places(rows: Mapping[str, Row]) -> dict[str, tuple[str, str]]:
    return {
        key: (str(row.sample.meta["split"]), str(row.sample.meta["split_group"]))
        for key, row in rows.items()
    }


def test_a_sample_that_changed_altogether_stays_in_its_split_and_group(tmp_path: Path) -> None:
    growing = Growing(tmp_path, NEAR)
    keys = [f"k{i:02d}" for i in range(20)]

    def version(number: int) -> list[Sample]:
        looks = [(i + 100 * number) * 0x9E3779B97F4A7C15 % 2**64 for i in range(20)]
        other = [look(f"{key}-{number}", bits) for key, bits in zip(keys, looks, strict=True)]
        return [replace(one, key=key) for key, one in zip(keys, other, strict=True)]

    before = places(growing.add(version(0)))
    for number in (1, 2):
        gone = dict.fromkeys(keys, "changed")
        assert places(growing.add(version(number), gone=gone)) == before
    assert len({split for split, _ in before.values()}) > 1


def test_what_a_sample_was_linked_to_before_it_changed_still_is_where_it_was(
    tmp_path: Path,
) -> None:
    growing = Growing(tmp_path, GroupSplit(together=("image",)))
    before = places(growing.add([sample(f"k{i:02d}", str(i)) for i in range(20)]))
    gone = dict.fromkeys(before, "changed")
    growing.add([sample(f"k{i:02d}", str(100 + i)) for i in range(20)], gone=gone)
    twins = places(growing.add([sample(f"z{i:02d}", str(i)) for i in range(20)]))
    assert twins == {f"z{key[1:]}": place for key, place in before.items()}


def test_what_was_removed_holds_nobody_in_its_split(tmp_path: Path) -> None:
    rule = GroupSplit(together=("image", "meta:caption"))
    growing = Growing(tmp_path, rule)
    old = places(growing.add([sample(f"k{i:02d}", str(i)) for i in range(30)]))
    (train, *_), (test, *_) = (
        [key for key, (split, _) in old.items() if split == wanted] for wanted in ("train", "test")
    )
    bridge = [
        sample("n0", str(int(train[1:])), caption="x"),
        sample("n1", str(int(test[1:])), caption="x"),
    ]
    dropped = Growing(tmp_path / "still", rule)
    dropped.add([sample(f"k{i:02d}", str(i)) for i in range(30)])
    assert {row.reason for row in dropped.add(bridge).values()} == {"twins_in_two_splits"}
    rows = growing.add(bridge, gone={train: "removed"})
    assert places(rows) == dict.fromkeys(("n0", "n1"), ("test", test))
    # a value that another one has as well still holds
    growing.add([sample("m", str(int(test[1:])))])
    rows = growing.add([sample("y", str(int(test[1:])))], gone={test: "removed"})
    assert places(rows) == {"y": ("test", test)}


def test_stratified_newcomers_take_the_places_of_what_is_gone(tmp_path: Path) -> None:
    rule = GroupSplit(together=("image",), stratify="meta:label")
    growing = Growing(tmp_path, rule)
    old = places(growing.add([sample(f"k{i:03d}", label="x") for i in range(100)]))
    gone = {key: "removed" for key, (split, _) in old.items() if split == "test"}
    changed = {key: "changed" for key, (split, _) in old.items() if split == "val"}
    again = [sample(key, "other", label="x\ty") for key in changed]
    growing.add([], gone=gone)
    growing.add(again, gone=changed)
    growing.add(again, gone=changed)
    rows = places(growing.add([sample(f"n{i:03d}", label="x") for i in range(20)]))
    found = Counter(split for split, _ in rows.values())
    # of 90 of that class 18 belong in test, 9 in val, and 70 lie in train
    assert found["train"] == 0
    assert found["test"] - found["val"] in (8, 9, 10)


def test_a_dataset_made_anew_may_hold_on_to_every_split(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "one", NEAR)
    samples = [look(f"k{i:02d}", i * 0x9E3779B97F4A7C15 % 2**64) for i in range(30)]
    before = places(growing.add(samples[:10]) | growing.add(samples[10:]))
    growing.add([], gone={"k03": "forgotten"})
    other = GroupSplit(together=("image",), max_distance={"image": 3}, seed=7)
    anew = Growing(tmp_path / "two", other)
    left = [one for one in samples if one.key != "k03"]
    rows = anew.add([*left, look("new", 0x1234)], settled=growing.made[-1])
    del before["k03"]
    assert {key: place for key, place in places(rows).items() if key != "new"} == before
    (artifact,) = anew.made
    assert not knows_one(artifact, ["k03"])
    assert knows_one(artifact, ["k04"])
    (row,) = anew.add([look("z", 4 * 0x9E3779B97F4A7C15 % 2**64)]).values()
    assert row.sample.meta["split_group"] == before["k04"][1]
