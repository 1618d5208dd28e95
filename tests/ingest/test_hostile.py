"""Hostile tables, tars and sidecars: each costs one sample, and the worker parses none of them."""

import io
import json
import os
import resource
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_reading import Lines, Sidecars
from media import png
from tars import make_tar

from mmcore.core import in_hand
from mmcore.core.decoder import close_idle
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.graph import Graph
from mmcore.core.rows import Row, read_rows
from mmcore.core.runner import Run
from mmcore.core.source import FILES_NAME, SCAN_STEP, Source
from mmcore.core.step import Artifact, Step
from mmcore.errors import StepError
from mmcore.executors.local import LocalExecutor
from mmcore.ingest import records
from mmcore.ingest.corpus import OpenCorpus
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.layout import ContainerLayout, Layout, SourceFile
from mmcore.ingest.table import Columns, TableLayout
from mmcore.ingest.webdataset import WebdatasetLayout
from mmcore.ingest.work import IngestWork
from mmcore.sample import sha256_hex

LIMITS = DecoderLimits(seconds=0.5, seconds_per_mb=0.0, memory_mb=256)
TABLE = TableLayout(columns=Columns(key="id", caption="text"))

Ingested = Callable[..., tuple[dict[str, Artifact], list[Row]]]


@pytest.fixture(scope="module", autouse=True)
def _end_what_was_started() -> Iterator[None]:
    yield
    close_idle()


@pytest.fixture
def ingested(tmp_path: Path) -> Ingested:
    def run(
        layout: Layout, *, workers: int = 1, root: str = "root", limits: DecoderLimits = LIMITS
    ) -> tuple[dict[str, Artifact], list[Row]]:
        work = IngestWork(layout=layout, limits=limits, samples_per_task=4)
        step = Step("ingest", work, inputs=("scan",), max_quarantined=1.0)
        reader = layout if isinstance(layout, ContainerLayout) else None
        source = Source(str(corpus_of(tmp_path)), reader=reader, limits=limits)
        executor = LocalExecutor(num_workers=workers)
        results = Run(
            Graph("tiny", source, (step,)), root=str(tmp_path / root), executor=executor
        ).run()
        artifacts = {name: result.artifact for name, result in results.items()}
        return artifacts, list(read_rows(artifacts["ingest"]))

    return run


def corpus_of(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir(exist_ok=True)
    return folder


def fates(rows: list[Row]) -> list[str]:
    return [row.reason or "kept" for row in rows]


def test_records_that_kill_their_reader_are_quarantined_alone_in_any_order_and_number_of_workers(
    tmp_path: Path, ingested: Ingested
) -> None:
    folder = corpus_of(tmp_path)
    words = ["a", "segfault", "b", "bomb", "loop", "c", "exit"]
    (folder / "a.words").write_text("\n".join(words))
    (folder / "b.words").write_text("\n".join(reversed(words)))
    found, rows = ingested(Lines(), workers=1, root="one")
    again, _ = ingested(Lines(), workers=2, root="two")
    fate = ["kept", "decoder_died", "kept", "decoder_memory", "decoder_timeout", "kept",
            "decoder_died"]  # fmt: skip
    assert fates(rows) == [*fate, *reversed(fate)]
    assert [row.sample.meta["n"] for row in rows] == [*range(7), *range(7)]
    assert found["ingest"].manifest.files == again["ingest"].manifest.files
    counts = found["ingest"].manifest.counts
    assert (counts.found, counts.kept, sum(counts.quarantined.values())) == (14, 6, 8)


def test_a_reader_that_is_killed_from_outside_fails_the_step_and_drops_nothing(
    tmp_path: Path, ingested: Ingested
) -> None:
    (corpus_of(tmp_path) / "a.words").write_text("a killed b")
    with pytest.raises(StepError, match="killed 3 times"):
        ingested(Lines())


def test_the_scan_counts_in_the_decoder_process_too(tmp_path: Path, ingested: Ingested) -> None:
    (corpus_of(tmp_path) / "a.words").write_text("a segfault b")
    found, _ = ingested(Lines())
    table = pq.read_table(Path(found[SCAN_STEP].url) / FILES_NAME)
    assert table["num_samples"].to_pylist() == [3]


@pytest.mark.parametrize("line", ["[" * 200_000, '{"a":' * 200_000, "[" * 5_000 + "]" * 5_000])
def test_a_line_that_nests_without_end_costs_one_sample(
    tmp_path: Path, ingested: Ingested, line: str
) -> None:
    good = [json.dumps({"id": i, "text": "An owl."}) for i in range(2)]
    (corpus_of(tmp_path) / "a.jsonl").write_text("\n".join((good[0], line, good[1])))
    _, rows = ingested(TABLE)
    assert fates(rows) == ["kept", "row_unreadable", "kept"]


def test_a_line_whose_objects_do_not_fit_costs_one_sample(
    tmp_path: Path, ingested: Ingested
) -> None:
    good = [json.dumps({"id": i, "text": "An owl."}) for i in range(2)]
    bomb = '{"id": 7, "text": [' + ",".join(["[]"] * 4_000_000) + "]}"
    (corpus_of(tmp_path) / "a.jsonl").write_text("\n".join((good[0], bomb, good[1])))
    _, rows = ingested(TABLE, limits=DecoderLimits(seconds=60.0, memory_mb=160))
    assert fates(rows) == ["kept", "decoder_memory", "kept"]
    assert rows[1].sample.meta["source"] == "a.jsonl#1"


def test_a_line_longer_than_the_memory_costs_one_sample_and_no_memory(
    tmp_path: Path, ingested: Ingested
) -> None:
    good = [json.dumps({"id": i, "text": "An owl."}).encode() for i in range(2)]
    with open(corpus_of(tmp_path) / "a.jsonl", "wb") as file:
        file.write(good[0] + b"\n")
        file.seek(384 << 20, io.SEEK_CUR)  # a hole: nothing of it is on the disk
        file.write(b"\n" + good[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, rows = ingested(TABLE, limits=DecoderLimits(memory_mb=160))
    assert fates(rows) == ["kept", "row_too_long", "kept"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_row_group_that_does_not_fit_costs_the_group(tmp_path: Path, ingested: Ingested) -> None:
    small = pa.table({"id": [1, 2], "text": ["An owl.", "A crow."]})
    # a few KB in the file, a quarter of a gigabyte in memory
    large = pa.table({"id": [3], "text": ["x" * (2**28)]})
    with pq.ParquetWriter(
        corpus_of(tmp_path) / "a.parquet", small.schema, compression="zstd", use_dictionary=False
    ) as writer:
        for table in (small, large, small.set_column(0, "id", [[4, 5]])):
            writer.write_table(table)
    _, rows = ingested(TABLE, limits=DecoderLimits(memory_mb=160))
    assert fates(rows) == ["kept", "kept", "decoder_memory", "kept", "kept"]
    assert rows[2].detail.startswith("1 rows of row group 1")


def test_rows_that_are_large_are_decoded_one_by_one_and_none_is_refused(
    tmp_path: Path, ingested: Ingested
) -> None:
    rows = {"id": list(range(12)), "video": [os.urandom(24 << 20)] * 12}
    with pq.ParquetWriter(
        corpus_of(tmp_path) / "a.parquet",
        pa.schema([("id", pa.int64()), ("video", pa.binary())]),
        use_dictionary=False,
        compression="none",
        write_batch_size=1,  # a page is decoded whole, whoever wrote it
    ) as writer:
        writer.write_table(pa.table(rows))
    layout = TableLayout(columns=Columns(key="id", media="video"))
    _, found = ingested(layout, limits=DecoderLimits(memory_mb=256))
    # noise is no video: what counts is that each row was looked at
    assert fates(found) == ["content_unknown"] * 12


def test_what_is_read_of_a_parquet_file_gives_its_rows_time(tmp_path: Path) -> None:
    data = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": list(range(1000))}), data)
    passed: list[int] = []

    class Watching:
        def begin(self, place: str, number: int) -> None:
            return None

        def passed(self, num_bytes: int) -> None:
            passed.append(num_bytes)

    size = data.stat().st_size
    file = SourceFile("a.parquet", size, sha256_hex(data.read_bytes()))
    with OpenCorpus(str(tmp_path), "").seekable(file) as stream:
        in_hand.watch(Watching())
        try:
            assert len(list(records.read_records("a.parquet", stream))) == 1000
        finally:
            in_hand.watch(None)
    assert sum(passed) >= size // 2


def test_a_tar_that_claims_an_exabyte_costs_one_sample(tmp_path: Path, ingested: Ingested) -> None:
    data = make_tar([("0.png", png(0)), ("1.png", png(1))])
    header = bytearray(tarfile.TarInfo("2.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + struct.pack(">3xQ", 2**60)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    end = data.rstrip(b"\0")
    whole = end + bytes(-len(end) % 512) + bytes(header) + b"x" * 4096
    (corpus_of(tmp_path) / "a.tar").write_bytes(whole)
    _, rows = ingested(WebdatasetLayout())
    assert fates(rows) == ["kept", "kept", "tar_truncated"]


def test_a_hostile_sidecar_costs_its_sample_and_keeps_its_name(
    tmp_path: Path, ingested: Ingested
) -> None:
    folder = corpus_of(tmp_path)
    for i in range(6):
        (folder / f"{i}.png").write_bytes(png(i))
        (folder / f"{i}.json").write_text('{"text": "An owl."}')
    (folder / "3.json").write_text("[" * 2**19)
    _, rows = ingested(FolderLayout())
    assert fates(rows) == ["kept", "kept", "kept", "metadata_unreadable", "kept", "kept"]
    assert rows[3].sample.parts.keys() == {"png"}


def test_a_sidecar_that_kills_its_reader_costs_its_sample_and_keeps_its_parts(
    tmp_path: Path, ingested: Ingested
) -> None:
    folder = corpus_of(tmp_path)
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png(i))
        (folder / f"{i}.json").write_text('{"text": "An owl."}')
    (folder / "1.json").write_text('{"word": "segfault"}')
    _, rows = ingested(Sidecars())
    assert fates(rows) == ["kept", "decoder_died", "kept"]
    assert rows[1].sample.parts.keys() == {"png"}


def test_the_worker_itself_parses_nothing(
    tmp_path: Path, ingested: Ingested, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        pytest.fail("it is parsed in the worker")

    folder = corpus_of(tmp_path)
    (folder / "a.jsonl").write_text('{"id": 1, "text": "An owl."}')
    monkeypatch.setattr(records, "_rows", refuse)
    monkeypatch.setattr("mmcore.ingest.folder.read_metadata", refuse)
    monkeypatch.setattr("mmcore.ingest.webdataset.walk", refuse)
    _, rows = ingested(TABLE)
    assert fates(rows) == ["kept"]
    (folder / "a.png").write_bytes(png(1))
    (folder / "a.json").write_text("{}")
    (folder / "a.tar").write_bytes(make_tar([("0.png", png(0))]))
    _, rows = ingested(FolderLayout(), root="folder")
    assert fates(rows) == ["kept"]
    _, rows = ingested(WebdatasetLayout(), root="tar")
    assert fates(rows) == ["kept"]


def test_limits_are_part_of_what_ingest_is_unless_they_are_the_usual_ones() -> None:
    usual = IngestWork(layout=TABLE)
    assert "limits" not in usual.identity()
    assert IngestWork(layout=TABLE, limits=LIMITS).identity() != usual.identity()
