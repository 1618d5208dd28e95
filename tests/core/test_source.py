"""The raw corpus: listed every time, hashed once per version of a file."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmcore.core.source import Source, describe_change, load_scan, look, scan
from mmcore.core.step import Artifact
from mmcore.errors import ConfigError, StorageError
from mmcore.executors.local import LocalExecutor
from mmcore.sample import sha256_hex


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
