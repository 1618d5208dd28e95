"""The raw corpus: listed every time, hashed once per version of a file."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore import storage
from mmcore.core import file_columns, source
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.manifest import FileRecord, verify_artifact
from mmcore.core.reader import Gathered
from mmcore.core.source import Source, describe_change, load_scan, look, scan
from mmcore.core.step import Artifact, canonical_json
from mmcore.errors import ConfigError, StorageError
from mmcore.executors.local import LocalExecutor
from mmcore.sample import Json, sha256_hex


class CountingExecutor(LocalExecutor):
    """Remembers which paths were hashed."""

    hashed: list[str]

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[tuple[int, Any]]:
        chunks = list(items)
        self.__dict__["hashed"] = [file.path for chunk in chunks for file in chunk]
        return super().map(function, chunks)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("a/1.txt", "a/2.txt", "b/1.txt"):
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text(f"text of {name}")
    return tmp_path / "corpus"


def scanned(corpus: Path, root: Path) -> tuple[Artifact, list[str]]:
    executor = CountingExecutor()
    memory = str(root / "memory")
    state = look(Source(str(corpus)), memory)
    directory = str(root / "scan")
    artifact = scan(
        Source(str(corpus)), state, memory_url=memory, directory=directory, executor=executor
    )
    return artifact, executor.hashed


def test_every_file_is_listed_with_its_hash(corpus: Path, tmp_path: Path) -> None:
    artifact, hashed = scanned(corpus, tmp_path)
    table = pq.read_table(Path(artifact.url) / "files.parquet").to_pylist()
    assert [row["path"] for row in table] == hashed == ["a/1.txt", "a/2.txt", "b/1.txt"]
    assert table[0]["sha256"] == sha256_hex(b"text of a/1.txt")
    assert artifact.manifest.facts == {"num_files": 3, "num_bytes": 45}


def test_only_files_that_are_new_or_have_changed_are_hashed(corpus: Path, tmp_path: Path) -> None:
    scanned(corpus, tmp_path)
    (corpus / "a" / "2.txt").write_text("another text")
    (corpus / "c.txt").write_text("a new text")
    _, hashed = scanned(corpus, tmp_path)
    assert hashed == ["a/2.txt", "c.txt"]


def test_the_same_content_has_one_identity_wherever_and_whenever_it_lies(
    corpus: Path, tmp_path: Path
) -> None:
    first, _ = scanned(corpus, tmp_path)
    os.utime(corpus / "a" / "1.txt", ns=(1, 1))
    touched, hashed = scanned(corpus, tmp_path)
    assert hashed == ["a/1.txt"]
    moved = corpus.rename(tmp_path / "moved")
    elsewhere, _ = scanned(moved, tmp_path / "other")
    assert first.manifest == touched.manifest == elsewhere.manifest


def test_other_content_or_another_name_has_another_identity(corpus: Path, tmp_path: Path) -> None:
    fingerprints = {scanned(corpus, tmp_path)[0].manifest.fingerprint}
    (corpus / "a" / "1.txt").rename(corpus / "a" / "3.txt")
    fingerprints.add(scanned(corpus, tmp_path)[0].manifest.fingerprint)
    (corpus / "a" / "3.txt").write_text("text of a/9.txt")
    fingerprints.add(scanned(corpus, tmp_path)[0].manifest.fingerprint)
    assert len(fingerprints) == 3


def test_a_look_knows_what_was_scanned_and_says_what_changed(corpus: Path, tmp_path: Path) -> None:
    memory = str(tmp_path / "memory")
    before = look(Source(str(corpus)), memory)
    assert before.content is None
    assert describe_change(before, memory) == "3 files not seen before"
    artifact, _ = scanned(corpus, tmp_path)
    known = look(Source(str(corpus)), memory)
    assert known.content == artifact.manifest.fingerprint
    assert load_scan(str(tmp_path / "scan"), known.content) == artifact
    (corpus / "a" / "1.txt").unlink()
    (corpus / "a" / "2.txt").write_text("another text")
    (corpus / "new.txt").write_text("new")
    after = look(Source(str(corpus)), memory)
    assert after.content is None
    assert describe_change(after, memory) == "source changed: 1 files new, 1 changed, 1 removed"


def test_a_lost_memory_costs_time_and_no_result(corpus: Path, tmp_path: Path) -> None:
    first, _ = scanned(corpus, tmp_path)
    for file in (tmp_path / "memory").iterdir():
        file.unlink()
    again, hashed = scanned(corpus, tmp_path)
    assert len(hashed) == 3
    assert again.manifest == first.manifest


def test_an_empty_source_is_refused_with_the_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file below .*nothing.*Run the fetcher"):
        look(Source(str(tmp_path / "nothing"), "Run the fetcher."), str(tmp_path))


def test_a_file_that_vanishes_before_it_is_hashed_is_an_error_and_drops_nothing(
    corpus: Path, tmp_path: Path
) -> None:
    memory = str(tmp_path / "memory")
    state = look(Source(str(corpus)), memory)
    (corpus / "b" / "1.txt").unlink()
    where = {"memory_url": memory, "directory": str(tmp_path / "scan")}
    with pytest.raises(StorageError, match=r"b/1.txt does not exist"):
        scan(Source(str(corpus)), state, executor=LocalExecutor(), **where)
    assert not (tmp_path / "scan").exists()


@dataclass(frozen=True)
class Lines:
    """Counts the lines of a file, and fetches what its lists name."""

    gathered: Gathered | None = None

    def scan_identity(self) -> dict[str, Json]:
        return {"reader": "lines"}

    def count(self, path: str, stream: BinaryIO) -> int | None:
        return None if path.startswith("b/") else len(stream.readlines(5))

    def lists(self, paths: Sequence[str]) -> list[str]:
        return list(paths[:1]) if self.gathered else []

    def gather(
        self, path: str, *, url: str, store_url: str, num_workers: int, limits: DecoderLimits
    ) -> Gathered:
        assert self.gathered is not None
        (Path(store_url) / "x").mkdir(parents=True, exist_ok=True)
        (Path(store_url) / "x" / "pack.bin").write_bytes(b"fetched")
        return self.gathered


def gathered(*, digest: str = "d", num_pending: int = 0) -> Gathered:
    record = FileRecord("fetched/x/pack.bin", 7, sha256_hex(b"fetched"))
    return Gathered("a/1.txt", digest, (record,), 3, {"url_not_found": 1}, num_pending)


def scanned_by(reader: Lines, corpus: Path, root: Path) -> tuple[Artifact, str]:
    source = Source(str(corpus), reader=reader)
    state = look(source, str(root / "memory"))
    artifact = scan(
        source,
        state,
        memory_url=str(root / "memory"),
        directory=str(root / "scan"),
        executor=LocalExecutor(),
    )
    again = look(source, str(root / "memory"))
    return artifact, again.content or describe_change(again, str(root / "memory"))


def test_samples_are_counted_in_the_pass_that_hashes(corpus: Path, tmp_path: Path) -> None:
    artifact, content = scanned_by(Lines(), corpus, tmp_path)
    table = pq.read_table(Path(artifact.url) / "files.parquet").to_pylist()
    assert [row["num_samples"] for row in table] == [1, 1, None]
    # what the reader left unread is hashed all the same
    assert [row["sha256"] for row in table] == [
        sha256_hex(f"text of {row['path']}".encode()) for row in table
    ]
    assert content == artifact.manifest.fingerprint
    assert artifact.manifest.fingerprint != scanned(corpus, tmp_path)[0].manifest.fingerprint


def test_what_was_fetched_is_part_of_the_scan_and_of_its_identity(
    corpus: Path, tmp_path: Path
) -> None:
    one, content = scanned_by(Lines(gathered()), corpus, tmp_path)
    assert (Path(one.url) / "fetched" / "x" / "pack.bin").read_bytes() == b"fetched"
    assert one.manifest.facts["fetched"] == {"num_fetched": 3, "failed": {"url_not_found": 1}}
    assert verify_artifact(one.url, one.manifest) == []
    assert content == one.manifest.fingerprint
    other, _ = scanned_by(Lines(gathered(digest="e")), corpus, tmp_path / "other")
    assert other.manifest.fingerprint != one.manifest.fingerprint


def test_a_scan_with_something_left_to_be_fetched_is_done_again(
    corpus: Path, tmp_path: Path
) -> None:
    _, said = scanned_by(Lines(gathered(num_pending=2)), corpus, tmp_path)
    assert said == "2 URLs failed and are tried again"


def test_a_file_whose_name_is_no_utf8_is_set_aside_and_said(corpus: Path, tmp_path: Path) -> None:
    (corpus / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    artifact, _ = scanned(corpus, tmp_path)
    assert artifact.manifest.facts["num_files"] == 3
    assert artifact.manifest.facts["unusable"] == ["caf\\xe9.txt"]


def test_a_large_file_is_hashed_in_pieces(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = scanned(corpus, tmp_path)
    monkeypatch.setattr("mmcore.core.source._WHOLE_BYTES", 3)
    monkeypatch.setattr(storage, "read", None)
    after, _ = scanned(corpus, tmp_path / "other")
    assert after.manifest == before.manifest


def test_slices_of_columns_have_the_digest_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_columns, "AT_ONCE", 2)
    columns = [["a", 'b"', "\u00e9"], [1, 2, 3]]
    arrays = [pa.chunked_array([pa.array(column)]) for column in columns]
    for more in ([], [["list.txt", "0"], "name"]):
        whole = sha256_hex(canonical_json([*columns, *more]))
        assert file_columns.digest_of_columns(arrays, more) == whole


@pytest.mark.parametrize("num_at_once", [1, 2, 4096])
def test_a_scan_that_looks_at_few_files_at_a_time_finds_all(
    corpus: Path, tmp_path: Path, num_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = scanned(corpus, tmp_path / "whole")
    monkeypatch.setattr(file_columns, "AT_ONCE", num_at_once)
    monkeypatch.setattr(source, "_FILES_PER_TASK", num_at_once)
    some, _ = scanned(corpus, tmp_path / "some")
    assert some.manifest.fingerprint == whole.manifest.fingerprint
    tables = [pq.read_table(Path(one.url) / "files.parquet") for one in (some, whole)]
    assert tables[0].to_pylist() == tables[1].to_pylist()
    state = look(Source(str(corpus)), str(tmp_path / "whole/memory"))
    assert state.listing == look(Source(str(corpus)), str(tmp_path / "some/memory")).listing
    (corpus / "a/1.txt").write_text("another text")
    (corpus / "b/1.txt").unlink()
    (corpus / "c.txt").write_text("new")
    again, hashed = scanned(corpus, tmp_path / "some")
    assert hashed == ["a/1.txt", "c.txt"]
    rows = pq.read_table(Path(again.url) / "files.parquet").to_pylist()
    assert [(row["path"], row["sha256"]) for row in rows] == [
        (path, sha256_hex((corpus / path).read_bytes())) for path in ("a/1.txt", "a/2.txt", "c.txt")
    ]
