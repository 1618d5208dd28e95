"""Tables as a source: a row is a sample, whatever its columns hold, or one with a reason."""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media import FLAC, png

from mmcore.core.rows import Row, load_part
from mmcore.core.step import Artifact
from mmcore.errors import ConfigError
from mmcore.ingest import work
from mmcore.ingest.table import Columns, TableLayout
from mmcore.sample import sha256_hex

Ingest = Callable[..., tuple[Artifact, list[Row]]]
LAYOUT = TableLayout(columns=Columns(key="id", image="image", caption="text"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus" / "pictures").mkdir(parents=True)
    for i in range(3):
        (tmp_path / "corpus" / "pictures" / f"{i}.png").write_bytes(png(i))
    return tmp_path / "corpus"


def write_lines(folder: Path, *rows: Mapping[str, object] | str, name: str = "a.jsonl") -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def fates(rows: list[Row]) -> dict[str, str]:
    return {str(row.sample.meta["original_key"]): row.reason or row.status for row in rows}


def test_paths_are_references_to_the_files_beside_the_table(folder: Path, ingest: Ingest) -> None:
    write_lines(folder, {"id": 7, "image": "pictures/1.png", "text": "An owl.", "width": 9})
    artifact, (row,) = ingest(folder, LAYOUT)
    ref = row.sample.parts["png"].ref
    assert ref is not None
    assert (ref.base, ref.path, ref.sha256) == ("source", "pictures/1.png", sha256_hex(png(1)))
    assert load_part(row.sample.parts["txt"], {"ingest": artifact.url}) == b"An owl."
    assert row.sample.key == "a-jsonl__7"
    meta: Any = row.sample.meta
    assert (meta["original_key"], meta["source"], meta["width"]) == ("7", "a.jsonl#0", 9)
    assert meta["original_sha256"] == {"png": ref.sha256, "txt": sha256_hex(b"An owl.")}


def test_bytes_of_a_table_go_to_the_artifact_with_their_hash(folder: Path, ingest: Ingest) -> None:
    rows = [
        {"id": "0", "image": {"bytes": png(4), "path": "x.png"}, "text": "struct"},
        {"id": "1", "image": {"bytes": None, "path": "pictures/2.png"}, "text": "struct with path"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    pq.write_table(
        pa.table({"id": ["2"], "image": [png(5)], "text": ["bytes"]}), folder / "b.parquet"
    )
    inline = "data:image/png;base64," + base64.b64encode(png(6)).decode()
    write_lines(folder, {"id": "3", "image": inline, "text": "inline"})
    artifact, found = ingest(folder, LAYOUT)
    bases = {"ingest": artifact.url, "source": str(folder)}
    by_key = {row.sample.meta["original_key"]: row.sample for row in found}
    for key, number in (("0", 4), ("1", 2), ("2", 5), ("3", 6)):
        assert load_part(by_key[key].parts["png"], bases) == png(number)
        hashes: Any = by_key[key].meta["original_sha256"]
        assert hashes["png"] == sha256_hex(png(number))


def test_every_broken_row_is_one_sample_with_a_reason(folder: Path, ingest: Ingest) -> None:
    write_lines(
        folder,
        {"id": "good", "image": "pictures/0.png", "text": "a"},
        {"id": "up", "image": "../../etc/passwd"},
        {"id": "root", "image": "/etc/passwd"},
        {"id": "drive", "image": "C:\\x.png"},
        {"id": "gone", "image": "pictures/9.png"},
        {"id": "html", "image": "data:image/png;base64," + base64.b64encode(b"<html>").decode()},
        {"id": "url", "image": "http://example.org/x.png"},
        {"id": "ftp", "image": "ftp://example.org/x.png"},
        {"id": "number", "image": 3},
        {"id": "text", "text": {"no": "text"}},
        {"id": "nothing"},
        {"id": "good", "text": "the same id"},
        {"text": "no id"},
        "{broken",
    )
    artifact, rows = ingest(folder, LAYOUT)
    assert [row.reason for row in rows] == [
        "", "path_outside", "path_outside", "url_refused", "part_missing", "content_unknown",
        "url_not_fetched", "url_refused", "value_not_understood", "value_not_understood",
        "row_empty", "key_taken", "key_missing", "row_unreadable",
    ]  # fmt: skip
    assert artifact.manifest.counts.found == 14
    assert len({row.sample.key for row in rows}) == 14


def test_files_that_no_row_names_are_counted(folder: Path, ingest: Ingest) -> None:
    write_lines(folder, {"id": 1, "image": "pictures/1.png"})
    artifact, _ = ingest(folder, LAYOUT)
    assert artifact.manifest.facts["unclaimed"] == {"not_in_a_table": 2}


def test_a_list_of_captions_is_one_sample_or_several_as_declared(
    folder: Path, ingest: Ingest
) -> None:
    write_lines(folder, {"id": 1, "image": "pictures/1.png", "text": ["One.", ["Two."]]})
    _, (first,) = ingest(folder, LAYOUT)
    assert first.sample.meta["captions"] == ["One.", "Two."]
    each = TableLayout(columns=LAYOUT.columns, captions="each")
    artifact, rows = ingest(folder, each, root="each")
    texts = [load_part(row.sample.parts["txt"], {"ingest": artifact.url}) for row in rows]
    assert texts == [b"One.", b"Two."]
    assert len({row.sample.meta["caption_group"] for row in rows}) == 1
    assert {row.sample.meta["original_key"] for row in rows} == {"1"}


def test_columns_say_label_licence_and_language(folder: Path, ingest: Ingest) -> None:
    columns = Columns(image="file", label="kind.name", licence="l", language="lang", source="from")
    layout = TableLayout(columns=columns, licence="CC0-1.0")
    row = {"file": "pictures/1.png", "kind": {"name": "bird"}, "l": "CC-BY-4.0", "lang": "fr"}
    write_lines(folder, {**row, "from": "a museum"}, {"file": "pictures/2.png", "kind": {}})
    _, (first, second) = ingest(folder, layout)
    meta: Any = first.sample.meta
    assert (meta["label"], meta["licence"], meta["language"]) == ("bird", "CC-BY-4.0", "fr")
    assert (meta["source"], meta["original_key"]) == ("a museum", "000000")
    assert (second.reason, second.sample.meta["licence"]) == ("label_missing", "CC0-1.0")


def test_numbers_of_classes_become_the_names_that_hugging_face_gave_them(
    folder: Path, ingest: Ingest
) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"text": ["a", "b"], "label": [1, 7]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, folder / "a.parquet")
    _, (first, second) = ingest(folder, TableLayout(columns=Columns(caption="text", label="label")))
    assert first.sample.meta["label"] == "dog"
    assert second.reason == "label_missing"


def test_a_column_may_hold_any_kind_of_media(folder: Path, ingest: Ingest) -> None:
    pq.write_table(pa.table({"x": [png(), FLAC, b"<html>"]}), folder / "a.parquet")
    _, rows = ingest(folder, TableLayout(columns=Columns(media="x")))
    assert [sorted(row.sample.parts) for row in rows] == [["png"], ["flac"], []]
    assert rows[2].reason == "content_unknown"


def test_sound_in_a_column_of_pictures_is_refused(folder: Path, ingest: Ingest) -> None:
    pq.write_table(pa.table({"image": [FLAC]}), folder / "a.parquet")
    _, (row,) = ingest(folder, TableLayout(columns=Columns(image="image")))
    assert row.reason == "content_unknown"


def test_a_column_that_is_not_there_is_said_with_those_that_are(
    folder: Path, ingest: Ingest
) -> None:
    (folder / "a.csv").write_text("id,img,text\n1,pictures/1.png,a\n")
    _, (row,) = ingest(folder, LAYOUT)
    assert row.reason == "column_missing"
    assert "image" in row.detail
    assert "img" in row.detail


def test_tables_are_chosen_by_pattern(folder: Path, ingest: Ingest) -> None:
    write_lines(folder, {"id": 1, "text": "a"}, name="train.jsonl")
    write_lines(folder, {"id": 2, "text": "b"}, name="other.jsonl")
    _, rows = ingest(folder, TableLayout(columns=LAYOUT.columns, tables=("train*",)))
    assert fates(rows) == {"1": "kept"}


def test_two_tables_that_differ_in_their_extension_share_no_key(
    folder: Path, ingest: Ingest
) -> None:
    write_lines(folder, {"id": 1, "text": "a"})
    (folder / "a.csv").write_text("id,image,text\n1,,b\n")
    _, rows = ingest(folder, LAYOUT)
    assert sorted(row.sample.key for row in rows) == ["a-csv__1", "a-jsonl__1"]


def test_names_in_any_script_are_found(folder: Path, ingest: Ingest) -> None:
    (folder / "\u732b caf\u00e9.png").write_bytes(png(8))
    write_lines(folder, {"id": "\u732b", "image": "\u732b caf\u00e9.png"})
    _, (row,) = ingest(folder, LAYOUT)
    assert row.status == "kept"
    assert row.sample.key.isascii()


def test_the_parts_of_a_table_of_pictures_stay_small(
    folder: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_MAX_PART_BYTES", 200_000)
    table = pa.table({"image": [png(i) + bytes(60_000) for i in range(20)]})
    pq.write_table(table, folder / "a.parquet", row_group_size=7)
    artifact, rows = ingest(folder, TableLayout(columns=Columns(image="image")))
    sizes = [file.num_bytes for file in artifact.manifest.files if file.path.endswith(".bin")]
    assert len(rows) == 20
    assert len(sizes) == 5
    assert max(sizes) < 300_000


def test_a_table_without_a_column_that_holds_something_is_refused() -> None:
    with pytest.raises(ConfigError, match="columns"):
        TableLayout(columns=Columns(key="id", label="x"))
