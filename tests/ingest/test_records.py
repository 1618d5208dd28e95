"""Rows of tables: read one after the other, and a broken one costs itself alone."""

import csv
import gzip
import io
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore.ingest.records import (
    MAX_ROW_BYTES,
    Record,
    class_names,
    count_records,
    format_of,
    read_records,
)


def read(name: str, data: bytes) -> list[Record]:
    return list(read_records(name, io.BytesIO(data)))


def values(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [dict(record.values) for record in records if record.problem is None]


def problems(records: Sequence[Record]) -> list[tuple[int, str]]:
    return [(record.number, record.problem[0]) for record in records if record.problem]


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a.parquet", "parquet"),
        ("a/B.JSONL", "jsonl"),
        ("a.csv.gz", "csv"),
        ("a.parquet.gz", None),
        ("csv", None),
        ("a.json", None),
    ],
)
def test_a_table_is_known_by_its_name(path: str, form: str | None) -> None:
    assert format_of(path) == form


def test_json_lines_are_read_and_broken_ones_are_problems() -> None:
    data = b'\xef\xbb\xbf{"a": 1}\n\n{broken\n{"a": NaN}\n{"a": 1, "a": 2}\n[1]\n\xff\n{"a": 2}'
    records = read("a.jsonl", data)
    assert values(records) == [{"a": 1}, {"a": 2}]
    assert problems(records) == [(i, "row_unreadable") for i in range(1, 6)]
    assert [record.number for record in records] == list(range(7))


def test_a_line_that_is_too_long_is_one_problem_and_never_whole_in_memory() -> None:
    data = b'{"a": 1}\n' + b"x" * (2 * MAX_ROW_BYTES + 5) + b'\n{"a": 2}\n'
    records = read("a.jsonl", data)
    assert values(records) == [{"a": 1}, {"a": 2}]
    assert problems(records) == [(1, "row_too_long")]


def test_csv_with_quotes_lines_and_scripts_is_read_as_it_was_written() -> None:
    rows = [["id", "text"], ["1", 'a, "b"\nc'], ["2", "caf\u00e9 \u732b"], ["3", ""]]
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    found = values(read("a.csv", b"\xef\xbb\xbf" + out.getvalue().encode()))
    assert found == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_semicolons_and_tabs_are_separators_too() -> None:
    assert values(read("a.csv", b"id;text\n1;a,b\n")) == [{"id": "1", "text": "a,b"}]
    assert values(read("a.tsv", b"id\ttext\n1\ta,b\n")) == [{"id": "1", "text": "a,b"}]


def test_a_quote_that_is_never_closed_costs_its_own_row() -> None:
    records = read("a.csv", b'id,text\n1,"open\n2,fine\n3,fine\n')
    assert [row["id"] for row in values(records)] == ["2", "3"]
    assert problems(records) == [(0, "row_unreadable")]


def test_rows_with_other_columns_or_bytes_that_are_no_text_are_problems() -> None:
    records = read("a.csv", b"id,text\n1\n2,a,b\n3,\xff\n\n4,fine\n")
    assert values(records) == [{"id": "4", "text": "fine"}]
    assert problems(records) == [(i, "row_unreadable") for i in range(3)]


def test_a_header_with_a_name_twice_is_no_table() -> None:
    assert problems(read("a.csv", b"id,id\n1,2\n")) == [(0, "table_unreadable")]


def test_a_gzipped_table_is_read_to_where_it_is_cut() -> None:
    data = gzip.compress(b'{"a": 1}\n' * 50)
    assert len(values(read("a.jsonl.gz", data))) == 50
    cut = read("a.jsonl.gz", data[:-6])
    assert problems(cut)[-1][1] == "table_unreadable"


def test_parquet_is_read_in_order_with_nested_values() -> None:
    rows = [
        {"id": i, "image": {"bytes": bytes([i]), "path": None}, "t": ["a", "b"]} for i in range(40)
    ]
    assert values(read("a.parquet", parquet(pa.Table.from_pylist(rows), row_group_size=7))) == rows


def test_a_broken_row_group_costs_its_own_rows() -> None:
    table = pa.table({"a": list(range(4000)), "b": [str(i) for i in range(4000)]})
    data = bytearray(parquet(table, row_group_size=1000, compression="none"))
    second = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1).column(0)
    start = second.dictionary_page_offset or second.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    records = read("a.parquet", bytes(data))
    assert [row["a"] for row in values(records)] == [*range(1000), *range(2000, 4000)]
    assert problems(records) == [(1000, "table_unreadable")]
    assert records[-1].number == 3999


def test_whatever_is_flipped_in_a_table_its_rows_or_problems_come_out() -> None:
    table = pa.table({"a": list(range(100)), "b": [f"text {i}" for i in range(100)]})
    rng = random.Random(3)
    for name, data in (
        ("a.parquet", parquet(table, row_group_size=20)),
        ("a.csv", b"id,t\n" + b'1,"x\ny"\n' * 40),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 40)),
    ):
        for _ in range(60):
            changed = bytearray(data)
            for _ in range(rng.randrange(1, 5)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            for record in read(name, bytes(changed)):
                assert record.problem is None or record.problem[0] in (
                    "row_unreadable",
                    "table_unreadable",
                )


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.txt"])
def test_rows_are_counted(name: str) -> None:
    data = {
        "a.parquet": parquet(pa.table({"a": [1, 2, 3]})),
        "a.jsonl": b'{"a": 1}\n{"a": 2}\n\n{"a": 3}\n',
        "a.csv": b"a\n1\n2\n3\n",
        "a.txt": b"# comment\nhttp://a\n\nhttp://b\nhttp://c",
    }[name]
    assert count_records(name, io.BytesIO(data)) == 3


def test_a_parquet_file_without_its_end_counts_as_the_one_that_says_so() -> None:
    data = parquet(pa.table({"a": [1, 2, 3]}))[:-9]
    assert count_records("a.parquet", io.BytesIO(data)) == 1
    assert problems(read("a.parquet", data)) == [(0, "table_unreadable")]


def test_names_of_classes_are_those_that_hugging_face_wrote() -> None:
    features = b'{"info": {"features": {"label": {"names": ["cat"], "_type": "ClassLabel"}}}}'
    table = pa.table({"label": [0]}).replace_schema_metadata({b"huggingface": features})
    assert class_names("a.parquet", io.BytesIO(parquet(table))) == {"label": ["cat"]}
    assert class_names("a.parquet", io.BytesIO(b"no parquet")) == {}
