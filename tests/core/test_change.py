from pathlib import Path

from mmcore.core.change import (
    Change,
    compare,
    ended,
    gone_now,
    gone_table,
    read_gone,
    standing,
)
from mmcore.core.manifest import Counts, Manifest
from mmcore.core.step import Artifact, Inputs


def test_what_a_corpus_gained_lost_and_changed_is_told_apart() -> None:
    found = compare({"a": 1, "b": 1, "c": 1}, {"b": 1, "c": 2, "d": 1})
    assert found == Change(added=("d",), changed=("c",), removed=("a",), num_left=2)
    assert found.num_to_learn == 2
    assert not compare({"a": 1}, {"a": 1})


def test_a_change_is_said_in_words_without_what_did_not_happen() -> None:
    assert str(Change(added=("a", "b"))) == "2 new samples"
    assert str(Change(removed=("a",), forgotten=("b",))) == "0 new samples, 1 removed, 1 forgotten"


def test_a_file_of_many_samples_counts_as_so_many() -> None:
    found = Change(added=("a", "b"), changed=("c",), num_samples={"a": 7, "c": 3})
    assert (str(found), found.num_to_learn) == ("8 new samples, 3 changed", 11)


def increment(directory: Path, gone: dict[str, str] | None) -> dict[str, Artifact]:
    directory.mkdir()
    if gone is not None:
        (directory / "gone.parquet").write_bytes(gone_table(gone))
    manifest = Manifest("ingest", directory.name, {}, Counts(), ())
    return {step: Artifact(str(directory), manifest) for step in ("ingest", "dedup")}


def test_a_row_counts_until_a_later_increment_puts_an_end_to_it(tmp_path: Path) -> None:
    history = (
        increment(tmp_path / "one", None),
        increment(tmp_path / "two", {"a": "changed", "b": "removed"}),
    )
    now = increment(tmp_path / "three", {"c": "forgotten", "a": "changed"})["ingest"]
    inputs = Inputs({}, {"ingest": now.url}, history)
    assert gone_now(inputs) == {"a": "changed", "c": "forgotten"}
    found = standing(history, "dedup", gone_now(inputs))
    assert [gone for _, gone in found] == [{"a", "b", "c"}, {"a", "c"}]
    assert [gone for _, gone in standing(history, "dedup")] == [{"a", "b"}, set()]
    assert ended({**gone_now(inputs), "d": "revived"}) == {"c": "forgotten"}


def test_the_first_increment_puts_an_end_to_nothing(tmp_path: Path) -> None:
    url = increment(tmp_path / "one", {"a": "removed"})["ingest"].url
    assert gone_now(Inputs({}, {"ingest": url})) == {}
    assert read_gone(None) == read_gone(str(tmp_path)) == {}
