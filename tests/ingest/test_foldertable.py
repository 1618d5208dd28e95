"""Tables beside files: `metadata.csv` tells of the pictures in its folder and below."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from media import png

from mmcore import storage
from mmcore.core.rows import Row, load_part
from mmcore.core.step import Artifact
from mmcore.ingest import foldertable
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.layout import SourceFile
from mmcore.sample import sha256_hex

Ingest = Callable[..., tuple[Artifact, list[Row]]]
LAYOUT = FolderLayout(table="metadata.csv", caption_from="json:text")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    foldertable._open.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/0.png", "a/deep/1.png", "b/2.png"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(len(name)))
    return tmp_path / "corpus"


def write(folder: Path, *lines: str, name: str = "metadata.csv") -> None:
    (folder / name).write_text("\n".join(["file_name,text,label", *lines]) + "\n")


def test_the_nearest_table_tells_of_a_file(folder: Path, ingest: Ingest) -> None:
    write(folder / "a", "0.png,zero,x", "deep/1.png,one,y")
    write(folder, "b/2.png,two,z", "a/0.png,not this,n")
    artifact, rows = ingest(folder, LAYOUT)
    told = [(row.sample.meta["label"], row.sample.meta["original_key"]) for row in rows]
    assert told == [("x", "a/0"), ("y", "a/deep/1"), ("z", "b/2")]
    texts = [load_part(row.sample.parts["txt"], {"ingest": artifact.url}) for row in rows]
    assert texts == [b"zero", b"one", b"two"]
    assert sorted(rows[0].sample.parts) == ["png", "txt"]
    facts: Any = artifact.manifest.facts
    assert facts["unclaimed"] == {}


def test_a_sidecar_goes_before_the_table(folder: Path, ingest: Ingest) -> None:
    write(folder, "a/0.png,zero,x")
    (folder / "a" / "0.json").write_text('{"label": "own"}')
    _, rows = ingest(folder, LAYOUT)
    assert (rows[0].sample.meta["label"], rows[0].sample.meta["text"]) == ("own", "zero")


def test_a_file_of_which_two_rows_tell_is_broken(folder: Path, ingest: Ingest) -> None:
    write(folder, "a/0.png,one,x", "a/0.png,another,x", "b/2.png,two,z")
    _, rows = ingest(folder, LAYOUT)
    assert [row.reason for row in rows] == ["metadata_unreadable", "", ""]


def test_rows_that_cannot_be_read_are_counted(folder: Path, ingest: Ingest) -> None:
    write(folder, 'a/0.png,"open,x', "b/2.png,two,z")
    artifact, rows = ingest(folder, LAYOUT)
    facts: Any = artifact.manifest.facts
    assert facts["unclaimed"] == {"row_unreadable": 1}
    assert all(row.status == "kept" for row in rows)


def files_in(folder: Path) -> list[SourceFile]:
    """Return the files below a folder as a scan finds them."""
    return [
        SourceFile(file.path, file.num_bytes, sha256_hex((folder / file.path).read_bytes()))
        for file in storage.list_files(str(folder))
    ]


def test_a_table_is_read_once_for_all_its_samples(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a/0.png,zero,x", "b/2.png,two,z")
    read: list[str] = []
    real = foldertable._read
    monkeypatch.setattr(
        foldertable, "_read", lambda file, *rest: (read.append(file.path), real(file, *rest))[1]
    )
    grouping = LAYOUT.group(files_in(folder))
    for raw in grouping.samples:
        LAYOUT.make(raw, lambda file: (folder / file.path).read_bytes())
    assert read == ["metadata.csv"]


def test_a_table_that_tells_of_nothing_is_left_aside(folder: Path, ingest: Ingest) -> None:
    (folder / "empty").mkdir()
    write(folder / "empty", "0.png,zero,x")
    artifact, _ = ingest(folder, LAYOUT)
    facts: Any = artifact.manifest.facts
    assert facts["unclaimed"] == {"sidecar_alone": 1}


def test_a_table_that_is_too_large_breaks_its_samples(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foldertable, "MAX_TABLE_BYTES", 10)
    write(folder, "a/0.png,zero,x")
    raws = LAYOUT.group(files_in(folder)).samples
    found = [LAYOUT.make(raw, lambda file: b"never read").outcomes[0] for raw in raws]
    assert {getattr(one, "reason", "kept") for one in found} == {"metadata_unreadable"}
