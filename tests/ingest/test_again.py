"""What of a corpus that changed is taken in again, and what counts no more."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media import png
from tars import make_tar

from mmcore.core.change import Change, read_gone
from mmcore.core.manifest import Counts, FileRecord, Manifest
from mmcore.core.rows import read_rows, write_part
from mmcore.core.source import Source, look, scan
from mmcore.core.step import Artifact, Inputs, TaskContext
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.corpus import arrivals
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.layout import ContainerLayout, Layout
from mmcore.ingest.table import Columns, TableLayout
from mmcore.ingest.webdataset import WebdatasetLayout
from mmcore.ingest.work import IngestWork
from mmcore.sample import Dropped, Sample

LINES = TableLayout(columns=Columns(key="id", caption="text"))
PICTURES = TableLayout(columns=Columns(key="id", image="image"))


class Growing:
    """A corpus, and what each increment of it took in."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        self.corpus = directory / "corpus"
        self.corpus.mkdir()
        self.directory = directory
        self.work = IngestWork(layout=layout, samples_per_task=3)
        self.history: list[dict[str, Artifact]] = []
        self.change: Change | None = None
        self.num_tasks = 0

    def add(self, *, lost_to: Mapping[str, str] | None = None) -> list[str]:
        """Take in what there is; return the keys with a row, and note who is dropped later."""
        number, layout = len(self.history), self.work.layout
        reader = layout if isinstance(layout, ContainerLayout) else None
        source = Source(str(self.corpus), reader=reader)
        memory = str(self.directory / "memory")
        scanned = scan(
            source,
            look(source, memory),
            memory_url=memory,
            directory=str(self.directory / "scan"),
            executor=LocalExecutor(num_workers=1),
        )
        if self.history:
            self.change = self.work.compare(self.history[-1]["scan"], scanned)
        bases = {"source": str(self.corpus), "scan": scanned.url}
        inputs = Inputs({"scan": scanned}, bases, tuple(self.history))
        context = TaskContext(inputs, str(self.directory / f"ingest-{number}"), "")
        tasks = self.work.tasks(inputs)
        self.num_tasks = len(tasks)
        reports = [self.work.run(task, context) for task in tasks]
        reports.append(self.work.finish(reports, context))
        files = tuple(file for report in reports for file in report.files)
        counts = Counts.total(report.counts for report in reports)
        ingest = Artifact(context.output_url, Manifest("ingest", "", {}, counts, files))
        made = {"scan": scanned, "ingest": ingest, "shard": _nothing("shard")}
        if lost_to:
            made["dedup"] = self._dropped(f"dedup-{number}", lost_to)
        self.history.append(made)
        return [row.sample.key.rpartition("__")[2] for row in read_rows(ingest)]

    @property
    def gone(self) -> dict[str, str]:
        gone = read_gone(self.history[-1]["ingest"].url)
        return {key.rpartition("__")[2]: reason for key, reason in gone.items()}

    def _dropped(self, name: str, lost_to: Mapping[str, str]) -> Artifact:
        context = TaskContext(Inputs({}, {}), str(self.directory / name), "")
        outcomes = [
            ("rule", Dropped(Sample(key), "exact_duplicate", twin=twin))
            for key, twin in lost_to.items()
        ]
        report = write_part("part-000000", outcomes, step="dedup", context=context)
        manifest = Manifest("dedup", "", {}, report.counts, tuple(report.files))
        return Artifact(context.output_url, manifest)


def _nothing(step: str) -> Artifact:
    return Artifact("", Manifest(step, "", {}, Counts(), ()))


def write_lines(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    path.write_text("\n".join(json.dumps({"id": key, "text": text}) for key, text in rows))


def test_of_a_table_only_rows_that_say_something_else_are_taken_in(tmp_path: Path) -> None:
    growing = Growing(tmp_path, LINES)
    rows = [(f"r{i}", f"text {i}") for i in range(8)]
    write_lines(growing.corpus / "a.jsonl", rows)
    write_lines(growing.corpus / "b.jsonl", rows[:2])
    assert len(growing.add()) == 10
    # all other rows move, and stay what they are
    write_lines(growing.corpus / "a.jsonl", [("new", "new"), *rows[:4], ("r4", "else"), *rows[6:]])
    assert growing.add() == ["new", "r4"]
    assert growing.gone == {"r4": "changed", "r5": "removed"}
    assert growing.num_tasks == 1
    assert str(growing.change) == "0 new samples, 1 changed"
    # once more, from there on
    write_lines(growing.corpus / "a.jsonl", [*rows[:4], ("r4", "else"), *rows[5:]])
    assert growing.add() == ["r5"]
    assert growing.gone == {"new": "removed"}
    assert str(growing.change) == "0 new samples, 1 changed"


def test_a_table_that_comes_and_one_that_goes_count_with_all_their_rows(tmp_path: Path) -> None:
    growing = Growing(tmp_path, LINES)
    rows = [(f"r{i}", f"text {i}") for i in range(5)]
    write_lines(growing.corpus / "a.jsonl", rows)
    write_lines(growing.corpus / "b.jsonl", rows[:2])
    growing.add()
    (growing.corpus / "b.jsonl").unlink()
    write_lines(growing.corpus / "c.jsonl", rows[:3])
    write_lines(growing.corpus / "a.jsonl", [*rows, ("r5", "5"), ("r6", "6")])
    assert growing.add() == ["r5", "r6", "r0", "r1", "r2"]
    assert growing.gone == {"r0": "removed", "r1": "removed"}
    assert str(growing.change) == "3 new samples, 2 changed, 2 removed"
    assert growing.change is not None
    assert growing.change.num_to_learn == 5


def test_rows_that_lost_to_some_that_may_be_gone_are_taken_in_again_alone(tmp_path: Path) -> None:
    growing = Growing(tmp_path, LINES)
    write_lines(growing.corpus / "a.jsonl", [(f"r{i}", f"text {i}") for i in range(6)])
    write_lines(growing.corpus / "b.jsonl", [("x", "the one"), ("y", "another")])
    growing.add(lost_to={"a-jsonl__r2": "b-jsonl__x", "a-jsonl__r3": "b-jsonl__y"})
    write_lines(growing.corpus / "b.jsonl", [("y", "another")])
    # of y nobody knows before the table is opened: r3 will lose to it again
    assert growing.add() == ["r2", "r3"]
    assert growing.gone == {"r2": "revived", "r3": "revived", "x": "removed"}


def test_of_a_tar_that_was_packed_anew_only_what_differs_is_taken_in(tmp_path: Path) -> None:
    growing = Growing(tmp_path, WebdatasetLayout())
    members = {f"{i:03d}.{ext}": f"{ext} {i}".encode() for i in range(5) for ext in ("jpg", "txt")}
    (growing.corpus / "a.tar").write_bytes(make_tar([*members.items()]))
    assert len(growing.add()) == 5
    members |= {"002.txt": b"another text", "9.jpg": b"jpg"}
    del members["004.jpg"], members["004.txt"]
    (growing.corpus / "a.tar").write_bytes(make_tar([*sorted(members.items(), reverse=True)]))
    assert sorted(growing.add()) == ["002", "9"]
    assert growing.gone == {"002": "changed", "004": "removed"}


def test_a_file_that_a_table_names_may_change(tmp_path: Path) -> None:
    growing = Growing(tmp_path, PICTURES)
    for i in range(3):
        (growing.corpus / f"{i}.png").write_bytes(png(i))
    rows = [json.dumps({"id": f"r{i}", "image": f"{i}.png"}) for i in range(4)]
    (growing.corpus / "a.jsonl").write_text("\n".join(rows))
    assert len(growing.add()) == 4
    (growing.corpus / "1.png").write_bytes(png(77))
    (growing.corpus / "2.png").unlink()
    assert growing.add() == ["r1", "r2"]
    assert growing.gone == {"r1": "changed", "r2": "changed"}
    (row,) = (row for row in read_rows(growing.history[-1]["ingest"]) if row.status != "kept")
    assert (row.sample.key, row.reason) == ("a-jsonl__r2", "part_missing")
    # what nothing names changes nothing
    (growing.corpus / "note.md").write_text("hello")
    growing.add()
    assert not growing.change


def test_captions_of_a_sample_are_told_apart_when_it_changes(tmp_path: Path) -> None:
    growing = Growing(tmp_path, FolderLayout(caption_languages=("en", "fr")))
    growing.work = IngestWork(layout=growing.work.layout, captions="each")
    for name in ("owl", "cat"):
        (growing.corpus / f"{name}.png").write_bytes(png(len(name)))
        for language in ("en", "fr"):
            (growing.corpus / f"{name}.{language}.txt").write_text(f"{name} {language}")
    assert sorted(growing.add()) == ["cat-en", "cat-fr", "owl-en", "owl-fr"]
    (growing.corpus / "owl.fr.txt").unlink()
    (growing.corpus / "owl.en.txt").write_text("An owl.")
    assert growing.add() == ["owl-en"]
    assert growing.gone == {"owl-en": "changed", "owl-fr": "removed"}


@pytest.mark.parametrize("num_same", [0, 2])
def test_an_increment_that_opens_much_holds_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_same: int
) -> None:
    monkeypatch.setattr("mmcore.ingest.again._ORIGINS_AT_ONCE", 2)
    growing = Growing(tmp_path, LINES)
    rows = [(f"r{i}", "text") for i in range(7)]
    write_lines(growing.corpus / "a.jsonl", rows)
    growing.add()
    write_lines(growing.corpus / "a.jsonl", rows[:num_same])
    growing.add()
    assert growing.gone == {f"r{i}": "removed" for i in range(num_same, 7)}


def scanned(directory: Path, results: Sequence[tuple[str, str, str]]) -> Artifact:
    directory.mkdir()
    name = "fetched/x/results.parquet"
    columns = dict(zip(("url", "sha256", "reason"), zip(*results, strict=True), strict=True))
    (directory / "fetched/x").mkdir(parents=True)
    pq.write_table(
        pa.table({name: list(values) for name, values in columns.items()}), directory / name
    )
    record = FileRecord(name, 1, str(hash(tuple(results))))
    return Artifact(str(directory), Manifest("scan", "", {}, Counts(), (record,)))


def test_why_urls_fail_is_no_change_of_a_list_and_what_arrives_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mmcore.ingest.corpus.fetched_name", lambda _path, name: f"fetched/x/{name}"
    )
    first = scanned(tmp_path / "1", [("a", "1", ""), ("b", "", "url_timeout")])
    other = scanned(tmp_path / "2", [("a", "1", ""), ("b", "", "url_not_found")])
    more = scanned(tmp_path / "3", [("a", "1", ""), ("b", "2", "")])
    one, two = arrivals(first, other, "x")
    assert one == two
    one, two = arrivals(first, more, "x")
    assert (one != two, one.num_urls, two.num_urls) == (True, 1, 2)
