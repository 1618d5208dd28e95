"""What lies between two steps: rows of every fate, and references that are checked."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore.core.manifest import Counts, Manifest
from mmcore.core.rows import (
    SCHEMA,
    load_part,
    read_kept,
    read_rows,
    rows_files,
    table_bytes,
    with_loaded,
    write_part,
)
from mmcore.core.step import Artifact, Inputs, TaskContext, TaskReport
from mmcore.errors import IntegrityError
from mmcore.sample import Dropped, Made, Outcome, Part, PartRef, Quarantined, Sample, sha256_hex


def sample(key: str, data: bytes = b"abc") -> Sample:
    return Sample(
        key, {"txt": Part(data=data)}, {"label": "x", "n": [1, {"a": None}]}, {"score": 0.25}
    )


def write(directory: Path, *outcomes: tuple[str, Outcome], name: str = "part-000000") -> TaskReport:
    context = TaskContext(Inputs({}, {}), str(directory), str(directory))
    return write_part(name, outcomes, step="clean", context=context)


def artifact_of(directory: Path, *reports: TaskReport) -> Artifact:
    files = tuple(file for report in reports for file in report.files)
    return Artifact(str(directory), Manifest("clean", "f" * 64, {}, Counts(), files))


def test_every_outcome_becomes_a_row_and_is_counted(tmp_path: Path) -> None:
    report = write(
        tmp_path,
        ("", sample("a")),
        ("min_side", Dropped(sample("b"), "too_small", "9 px < 16 px")),
        ("dedup", Dropped(sample("c"), "duplicate", twin="a")),
        ("decode", Quarantined(sample("d"), "undecodable", "not a PNG")),
    )
    assert report.counts == Counts(4, 1, {"duplicate": 1, "too_small": 1}, {"undecodable": 1})
    rows = {row.sample.key: row for row in read_rows(artifact_of(tmp_path, report))}
    assert [row.status for row in rows.values()] == ["kept", "dropped", "dropped", "quarantined"]
    assert (rows["b"].rule, rows["b"].reason, rows["b"].detail) == (
        "min_side",
        "too_small",
        "9 px < 16 px",
    )
    assert rows["c"].twin == "a"
    assert rows["a"].sample.meta == {"label": "x", "n": [1, {"a": None}]}
    assert rows["a"].sample.scores == {"score": 0.25}


def test_new_bytes_are_referred_to_where_the_step_wrote_them(tmp_path: Path) -> None:
    report = write(tmp_path, ("", sample("a", b"first")), ("", sample("b", b"second")))
    second = list(read_kept(artifact_of(tmp_path, report)))[1].parts["txt"]
    assert second.ref == PartRef("clean", "part-000000.bin", 5, 6, sha256_hex(b"second"))
    assert second.data is None
    assert load_part(second, {"clean": str(tmp_path)}) == b"second"


def test_bytes_that_no_stage_touched_stay_where_they_are(tmp_path: Path) -> None:
    ref = PartRef("source", "a.png", 0, 3, sha256_hex(b"abc"))
    untouched = Sample("a", {"png": Part(ref=ref, data=b"abc")})
    report = write(tmp_path, ("", untouched))
    assert [file.path for file in report.files] == ["part-000000.parquet"]
    (found,) = read_kept(artifact_of(tmp_path, report))
    assert found.parts["png"].ref == ref


def test_a_task_without_samples_writes_an_empty_table(tmp_path: Path) -> None:
    report = write(tmp_path)
    assert report.counts == Counts()
    assert list(read_rows(artifact_of(tmp_path, report))) == []


def test_equal_outcomes_are_equal_bytes(tmp_path: Path) -> None:
    one, two = sample("a"), sample("a")
    two = replace(two, meta=dict(reversed(list(two.meta.items()))))
    hashes = [
        [file.sha256 for file in write(tmp_path / str(i), ("", value)).files]
        for i, value in enumerate([one, two])
    ]
    assert hashes[0] == hashes[1]


def test_rows_are_read_by_file_and_only_from_tables_of_rows(tmp_path: Path) -> None:
    later = write(tmp_path, ("", sample("a")), name="part-000001")
    sooner = write(tmp_path, ("", sample("z")), name="part-000000")
    artifact = artifact_of(tmp_path, later, sooner)
    assert [record.path for record in rows_files(artifact)] == [
        "part-000000.parquet",
        "part-000001.parquet",
    ]
    assert [found.key for found in read_kept(artifact)] == ["z", "a"]


def test_a_table_with_other_bytes_is_refused(tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, write(tmp_path, ("", sample("a"))))
    with (tmp_path / "part-000000.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        IntegrityError, match=r"part-000000.parquet is not the file that was committed"
    ):
        list(read_rows(artifact))


@pytest.mark.parametrize(
    ("base", "data", "remedy"),
    [
        ("source", b"abd", "The source changed after it was scanned"),
        ("source", b"ab", "2 of 3 bytes"),
        ("clean", b"abd", "Delete the artifact below"),
    ],
)
def test_a_part_with_other_bytes_is_refused_with_what_to_do(
    tmp_path: Path, base: str, data: bytes, remedy: str
) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    part = Part(ref=PartRef(base, "a.txt", 0, 3, sha256_hex(b"abc")))
    with pytest.raises(IntegrityError, match=remedy):
        load_part(part, {base: str(tmp_path)})


def test_only_the_parts_that_are_asked_for_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    ref = PartRef("source", "a", 0, 3, sha256_hex(b"abc"))
    lazy = Sample("a", {"txt": Part(ref=ref), "png": Part(ref=ref)})
    loaded = with_loaded(lazy, ["txt"], {"source": str(tmp_path)})
    assert loaded.data("txt") == b"abc"
    assert loaded.parts["txt"].ref == ref
    assert loaded.parts["png"].data is None
    assert lazy.parts["txt"].data is None


def test_a_table_by_column_has_the_bytes_of_one_by_row(tmp_path: Path) -> None:
    made = Made("mark", "txt", "ids", Part(data=b"12"))
    nothing = Made("mark", "txt", "ids", None)
    whole = sample("a")
    outcomes: list[Outcome] = [
        replace(whole, parts={"txt": Part(data=b"abc", made=made), "jpg": Part(data=b"p")}),
        replace(sample("b"), scores={}),
        Dropped(replace(sample("c"), parts={"txt": Part(data=b"", made=nothing)}), "few", "1 < 2"),
        Quarantined(Sample("d"), "undecodable"),
    ]
    for number, some in enumerate((outcomes, outcomes[1:2], [])):
        report = write(tmp_path, *(("rule", one) for one in some), name=f"part-{number}")
        data = (tmp_path / f"part-{number}.parquet").read_bytes()
        table = pq.read_table(pa.BufferReader(data))
        assert ("made" in table.column_names) == (number == 0)
        if number == 0:
            assert table["made"].null_count == 2, "a row without any has no list"
        else:
            assert table_bytes(pa.Table.from_pylist(table.to_pylist(), schema=SCHEMA)) == data
        assert report.counts is not None
        assert report.counts.found == len(some)
    first, second, third, fourth = read_rows(artifact_of(tmp_path, write(tmp_path, *(
        ("rule", one) for one in outcomes))))  # fmt: skip
    ref = PartRef("clean", "part-000000.bin", 0, 1, sha256_hex(b"p"))
    assert first.sample.parts["jpg"] == Part(ref)
    kept = first.sample.parts["txt"].made
    assert kept is not None
    assert kept.part is not None
    assert kept.part.ref == PartRef("clean", "part-000000.bin", 4, 2, sha256_hex(b"12"))
    assert second.sample.parts["txt"].made is None
    assert third.sample.parts["txt"].made == nothing
    assert (fourth.status, fourth.sample.parts) == ("quarantined", {})
