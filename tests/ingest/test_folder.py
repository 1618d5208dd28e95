import random
from pathlib import Path

import pytest

from mmcore.errors import ConfigError
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.layout import Grouping, SourceFile
from mmcore.sample import Quarantined, Sample, sha256_hex


def group(layout: FolderLayout, contents: dict[str, bytes]) -> Grouping:
    files = [SourceFile(path, len(data), sha256_hex(data)) for path, data in contents.items()]
    grouping = layout.group(files)
    assert layout.group(random.Random(1).sample(files, k=len(files))) == grouping
    claimed = [file.path for raw in grouping.samples for file in raw.files.values()]
    assert sorted([*claimed, *(path for path, _ in grouping.unclaimed)]) == sorted(contents)
    return grouping


def outcome(layout: FolderLayout, contents: dict[str, bytes]) -> Sample | Quarantined:
    (raw,) = group(layout, contents).samples
    (only,) = layout.make(raw, lambda file: contents[file.path]).outcomes
    assert isinstance(only, Sample | Quarantined)
    return only


def test_files_of_one_stem_are_one_sample() -> None:
    names = ["a/cat.jpg", "a/cat.txt", "a/cat.wav", "a/cat.mp4", "a/dog.txt", "b/cat.txt"]
    grouping = group(FolderLayout(), dict.fromkeys(names, b"x"))
    assert [(raw.key, sorted(raw.files)) for raw in grouping.samples] == [
        ("a__cat", ["jpg", "mp4", "txt", "wav"]),
        ("a__dog", ["txt"]),
        ("b__cat", ["txt"]),
    ]
    assert not grouping.unclaimed


def test_the_stem_ends_at_the_last_dot() -> None:
    grouping = group(FolderLayout(), {"v1.2.jpg": b"x", "v1.2.txt": b"x", "v1.3.jpg": b"x"})
    assert [raw.original_key for raw in grouping.samples] == ["v1.2", "v1.3"]


def test_an_extension_in_capitals_is_the_same_extension() -> None:
    grouping = group(FolderLayout(), {"cat.JPG": b"x", "cat.Txt": b"x"})
    assert sorted(grouping.samples[0].files) == ["jpg", "txt"]


def test_parts_stay_where_they_are() -> None:
    sample = outcome(FolderLayout(), {"a/cat.jpg": b"picture"})
    assert isinstance(sample, Sample)
    ref = sample.parts["jpg"].ref
    assert ref is not None
    assert (ref.base, ref.path, ref.offset, ref.num_bytes) == ("source", "a/cat.jpg", 0, 7)
    assert ref.sha256 == sha256_hex(b"picture")


def test_what_is_no_sample_is_left_aside_with_a_reason() -> None:
    contents = {
        ".answers.json": b"{}",
        ".git/x.txt": b"x",
        "README": b"x",
        "a/cat.doc": b"x",
        "a/info.json": b"{}",
    }
    grouping = group(FolderLayout(), contents)
    assert not grouping.samples
    assert list(grouping.unclaimed) == [
        (".answers.json", "hidden"),
        (".git/x.txt", "hidden"),
        ("README", "no_extension"),
        ("a/cat.doc", "unknown_extension"),
        ("a/info.json", "sidecar_alone"),
    ]


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("a.wav", "a.ogg"), ("a.jpg", "a.JPG")])
def test_two_files_for_one_part_are_quarantined(names: tuple[str, str]) -> None:
    broken = outcome(FolderLayout(), {**dict.fromkeys(names, b"x"), "a.txt": b"x"})
    assert isinstance(broken, Quarantined)
    assert broken.reason == "part_ambiguous"
    assert all(name in broken.detail for name in names)


def test_several_pictures_of_one_stem_are_a_sample_each_where_that_is_declared() -> None:
    names = ["a/owl.jpg", "a/owl.png", "a/owl.txt", "a/cat.jpg"]
    layout = FolderLayout(several="each")
    files = [SourceFile(name, 1, sha256_hex(b"x")) for name in names]
    grouping = layout.group(files)
    assert [(raw.original_key, sorted(raw.files)) for raw in grouping.samples] == [
        ("a/cat", ["jpg"]),
        ("a/owl.jpg", ["jpg", "txt"]),
        ("a/owl.png", ["png", "txt"]),
    ]
    outcomes = [layout.make(raw, lambda _: b"x").outcomes[0] for raw in grouping.samples]
    assert all(isinstance(one, Sample) for one in outcomes)


@pytest.mark.parametrize("names", [("a.jpg", "a.JPG"), ("a.jpg", "a.png", "a.wav", "a.ogg")])
def test_what_cannot_be_told_apart_stays_ambiguous(names: tuple[str, ...]) -> None:
    layout = FolderLayout(several="each")
    broken = outcome(layout, dict.fromkeys(names, b"x"))
    assert isinstance(broken, Quarantined)
    assert broken.reason == "part_ambiguous"


def test_a_picture_and_a_film_are_not_ambiguous() -> None:
    assert isinstance(outcome(FolderLayout(), {"a.jpg": b"x", "a.mp4": b"x"}), Sample)


def test_the_sidecar_becomes_metadata() -> None:
    layout = FolderLayout(licence="CC0-1.0", language="en")
    sidecar = b'{"licence": "CC-BY-4.0", "year": 1999, "original_key": "forged", "label": 3}'
    sample = outcome(layout, {"a/cat.jpg": b"x", "a/cat.json": sidecar})
    assert isinstance(sample, Sample)
    assert dict(sample.meta) == {
        "source": "a/cat.jpg",
        "licence": "CC-BY-4.0",
        "language": "en",
        "year": 1999,
        "label": "3",
        "original_key": "a/cat",
        "original_sha256": {"jpg": sha256_hex(b"x"), "json": sha256_hex(sidecar)},
    }
    assert sorted(sample.parts) == ["jpg"]


@pytest.mark.parametrize("sidecar", [b"[]", b"{", b'{"label": ["a"]}', b'{"licence": null}'])
def test_a_broken_sidecar_quarantines_its_sample(sidecar: bytes) -> None:
    broken = outcome(FolderLayout(), {"a/cat.jpg": b"x", "a/cat.json": sidecar})
    assert isinstance(broken, Quarantined)
    assert broken.reason == "metadata_unreadable"
    assert broken.sample.meta["original_key"] == "a/cat"


def test_the_label_is_the_folder() -> None:
    sample = outcome(FolderLayout(label_from="folder"), {"train/cats/1.jpg": b"x"})
    assert isinstance(sample, Sample)
    assert sample.meta["label"] == "cats"


def test_the_label_is_a_field_of_the_sidecar() -> None:
    layout = FolderLayout(label_from="json:kind")
    sample = outcome(layout, {"1.jpg": b"x", "1.json": b'{"kind": "cat"}'})
    assert isinstance(sample, Sample)
    assert sample.meta["label"] == "cat"


@pytest.mark.parametrize(
    ("label_from", "contents"),
    [
        ("folder", {"1.jpg": b"x"}),
        ("json:kind", {"1.jpg": b"x"}),
        ("json:kind", {"1.jpg": b"x", "1.json": b'{"kind": ""}'}),
        ("json:kind", {"1.jpg": b"x", "1.json": b'{"kind": ["cat"]}'}),
        ("json:kind", {"1.jpg": b"x", "1.json": b'{"kind": true}'}),
    ],
)
def test_a_sample_without_the_label_is_quarantined(
    label_from: str, contents: dict[str, bytes]
) -> None:
    broken = outcome(FolderLayout(label_from=label_from), contents)
    assert isinstance(broken, Quarantined)
    assert broken.reason == "label_missing"


@pytest.mark.parametrize(
    "label_from", ["", "json:", "paths", "Folder", "folder:", "folder:x", "cls"]
)
def test_an_unknown_label_source_is_refused(label_from: str) -> None:
    with pytest.raises(ConfigError, match="label_from"):
        FolderLayout(label_from=label_from)


def test_an_empty_corpus_gives_nothing() -> None:
    assert group(FolderLayout(), {}) == Grouping([], [])


def test_a_made_corpus_is_claimed_whole(made: tuple[Path, object]) -> None:
    folder, _ = made
    contents = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    grouping = group(FolderLayout(label_from="folder"), contents)
    assert len(grouping.samples) == 200
    assert list(grouping.unclaimed) == [(".answers.json", "hidden")]
