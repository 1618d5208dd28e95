"""The manifest: what makes an artifact exist, once, naming every byte."""

from dataclasses import replace
from pathlib import Path

import pytest

from mmcore import storage
from mmcore.core.manifest import (
    Counts,
    FileRecord,
    Manifest,
    commit_manifest,
    load_manifest,
    verify_artifact,
)
from mmcore.errors import AccountingError, IntegrityError
from mmcore.sample import sha256_hex


def manifest_of(*files: tuple[str, bytes], facts: dict[str, int] | None = None) -> Manifest:
    records = tuple(FileRecord(path, len(data), sha256_hex(data)) for path, data in files)
    counts = Counts(3, 1, {"small": 1}, {"broken": 1})
    return Manifest(
        "clean", "f" * 64, {"step": "clean", "inputs": {}}, counts, records, facts or {}
    )


def test_a_manifest_survives_the_trip_through_json() -> None:
    manifest = manifest_of(("a.bin", b"abc"), facts={"num_shards": 2})
    assert Manifest.from_json(manifest.to_json(), where="here") == manifest


def test_equal_manifests_are_equal_bytes_whatever_the_order_of_their_facts() -> None:
    one = manifest_of(facts={"a": 1, "b": 2})
    two = manifest_of(facts={"b": 2, "a": 1})
    assert one.to_json() == two.to_json()


def test_counts_that_do_not_add_up_are_refused() -> None:
    Counts(6, 3, {"a": 1, "b": 1}, {"c": 1}).check("clean")
    with pytest.raises(AccountingError, match=r"clean: 7 samples went in and 6 are accounted for"):
        Counts(7, 3, {"a": 1, "b": 1}, {"c": 1}).check("clean")


def test_counts_are_added_by_reason_in_sorted_order() -> None:
    total = Counts.total(
        [Counts(2, 1, {"b": 1}), Counts(3, 1, {"a": 1}, {"c": 1}), Counts(1, 0, {"b": 1})]
    )
    assert total == Counts(6, 2, {"a": 1, "b": 2}, {"c": 1})
    assert list(total.dropped) == ["a", "b"]


def test_without_a_manifest_there_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "part-000000.parquet").write_bytes(b"finished, but not committed")
    assert load_manifest(str(tmp_path)) is None


def test_a_manifest_is_parsed_once_and_anew_where_its_bytes_are_others(tmp_path: Path) -> None:
    commit_manifest(str(tmp_path), manifest_of(("a", b"x")))
    first = load_manifest(str(tmp_path))
    assert load_manifest(str(tmp_path)) is first
    other = manifest_of(("a", b"y"))
    (tmp_path / "manifest.json").write_bytes(other.to_json())
    assert load_manifest(str(tmp_path)) == other


def test_of_two_commits_with_the_same_files_the_first_stays_in_force(tmp_path: Path) -> None:
    first, second = (manifest_of(("a", b"x"), facts={"run": number}) for number in (1, 2))
    assert commit_manifest(str(tmp_path), first) == first
    assert commit_manifest(str(tmp_path), second) == first
    assert load_manifest(str(tmp_path)) == first


def test_two_commits_with_other_bytes_are_an_error_that_names_the_step(tmp_path: Path) -> None:
    commit_manifest(str(tmp_path), manifest_of(("a", b"x")))
    with pytest.raises(IntegrityError, match=r"The step clean is not deterministic"):
        commit_manifest(str(tmp_path), manifest_of(("a", b"y")))


@pytest.mark.parametrize(
    "change", ["cut", "another format", "another version", "a field more", "not an object"]
)
def test_what_is_no_manifest_of_this_version_is_refused(tmp_path: Path, change: str) -> None:
    data = manifest_of(("a", b"x")).to_json()
    wrong = {
        "cut": data[:-9],
        "another format": data.replace(b"mm.manifest", b"mm.other"),
        "another version": data.replace(b'"format_version": 1', b'"format_version": 2'),
        "a field more": data.replace(b'"facts"', b'"odd": 1, "facts"'),
        "not an object": b"[1]",
    }[change]
    assert wrong != data
    (tmp_path / "manifest.json").write_bytes(wrong)
    with pytest.raises(IntegrityError, match=r"manifest.json is not a manifest of this version"):
        load_manifest(str(tmp_path))


def test_verify_says_what_is_missing_cut_or_changed(tmp_path: Path) -> None:
    manifest = manifest_of(("good", b"abc"), ("gone", b"abc"), ("cut", b"abc"), ("flipped", b"abc"))
    for name, data in (("good", b"abc"), ("cut", b"ab"), ("flipped", b"abd")):
        storage.write(str(tmp_path / name), data)
    assert verify_artifact(str(tmp_path), manifest) == [
        "gone: missing",
        "cut: 2 bytes, manifest says 3",
        "flipped: SHA-256 differs from the manifest",
    ]
    assert verify_artifact(str(tmp_path), replace(manifest, files=manifest.files[:1])) == []
