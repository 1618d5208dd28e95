"""Tables that grow, against the same rows written at once."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore.core import grown_table
from mmcore.core.grown_table import read_groups, write_grown
from mmcore.sample import sha256_hex

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("parts", pa.list_(pa.struct([("name", pa.string()), ("offset", pa.int64())]))),
        ("scores", pa.map_(pa.string(), pa.float64())),
    ]
)


def rows(numbers: Iterable[int]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"key": f"k{i}", "parts": [{"name": "txt", "offset": i}], "scores": [("s", i / 2)]}
            for i in numbers
        ],
        schema=SCHEMA,
    )


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grown_table, "ROWS_PER_GROUP", 10)
    monkeypatch.setattr(grown_table, "_BYTES_AT_ONCE", 100)


def test_a_table_that_grew_is_read_as_one(tmp_path: Path) -> None:
    write_grown(str(tmp_path), "0.parquet", [rows(range(25))], SCHEMA)
    for number in range(3):
        before = str(tmp_path / f"{number}.parquet")
        new = [rows(range(25 + 7 * number, 32 + 7 * number))]
        record = write_grown(str(tmp_path), f"{number + 1}.parquet", new, SCHEMA, before=before)
        data = (tmp_path / record.path).read_bytes()
        assert (record.num_bytes, record.sha256) == (len(data), sha256_hex(data))
        whole = rows(range(32 + 7 * number))
        assert pq.read_table(tmp_path / record.path, use_threads=False).equals(whole)
        assert pa.concat_tables(read_groups(str(tmp_path / record.path))).equals(whole)


def test_old_rows_are_copied_and_not_decoded(tmp_path: Path) -> None:
    write_grown(str(tmp_path), "0.parquet", [rows(range(20))], SCHEMA)
    old = (tmp_path / "0.parquet").read_bytes()
    footer = int.from_bytes(old[-8:-4], "little") + 8
    # what cannot be decoded is copied all the same
    (tmp_path / "0.parquet").write_bytes(b"PAR1" + b"?" * (len(old) - footer - 4) + old[-footer:])
    write_grown(
        str(tmp_path), "1.parquet", [rows([99])], SCHEMA, before=str(tmp_path / "0.parquet")
    )
    file = pq.ParquetFile(tmp_path / "1.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [10, 10, 1]
    assert file.read_row_group(2, use_threads=False).equals(rows([99]))


def test_how_new_rows_are_cut_into_tables_is_no_matter(tmp_path: Path) -> None:
    cuts = [[0, 33], [0, 5, 6, 30, 33], [0, 10, 20, 33]]
    records = [
        write_grown(
            str(tmp_path),
            f"{number}.parquet",
            [rows(range(a, b)) for a, b in itertools.pairwise(cut)],
            SCHEMA,
        )
        for number, cut in enumerate(cuts)
    ]
    assert len({record.sha256 for record in records}) == 1
    file = pq.ParquetFile(tmp_path / "0.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(4)] == [10, 10, 10, 3]


def test_a_table_of_no_rows_has_its_columns_and_can_grow(tmp_path: Path) -> None:
    write_grown(str(tmp_path), "0.parquet", [], SCHEMA)
    assert pq.read_schema(tmp_path / "0.parquet") == SCHEMA
    write_grown(str(tmp_path), "1.parquet", [rows([1])], SCHEMA, before=str(tmp_path / "0.parquet"))
    assert pq.read_table(tmp_path / "1.parquet", use_threads=False).equals(rows([1]))


def test_what_fails_while_rows_are_made_leaves_no_table(tmp_path: Path) -> None:
    def failing() -> Iterable[pa.Table]:
        yield rows([1])
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_grown(str(tmp_path), "0.parquet", failing(), SCHEMA)
    assert not list(tmp_path.iterdir())


def test_rows_give_the_same_bytes_however_they_came_in_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grown_table, "ROWS_PER_GROUP", 8192)
    # so many bytes that a column has several pages, which end where enough rows have come
    schema = pa.schema([("key", pa.string())])
    keys = [sha256_hex(str(number).encode()) * 8 for number in range(10_000)]
    whole = pa.table({"key": keys}, schema=schema)
    digests = [
        write_grown(
            str(tmp_path),
            f"{size}.parquet",
            (whole.slice(start, size) for start in range(0, len(whole), size)),
            schema,
        ).sha256
        for size in (10_000, 512, 300)
    ]
    assert len(set(digests)) == 1
