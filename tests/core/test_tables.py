"""Tables are read in one thread, and of those that are searched no more than there is to find."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore.core.rows import table_bytes
from mmcore.core.tables import read_table, rows_where, table_of

NUM_ROWS = 200_000
"""More than fit in one group of rows."""


@pytest.fixture(scope="module")
def data() -> bytes:
    keys = [f"k{i:06d}" for i in range(NUM_ROWS)]
    return table_bytes(pa.table({"key": keys, "number": list(range(NUM_ROWS))}))


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_columns_are_read_from_a_disk_and_from_elsewhere(
    tmp_path: Path, data: bytes, place: str
) -> None:
    url = str(tmp_path / "t.parquet")
    if place == "disk":
        Path(url).write_bytes(data)
        table = read_table(url, ["number"])
    else:
        table = table_of(data, ["number"])
    assert table.column_names == ["number"]
    assert table["number"].to_pylist() == list(range(NUM_ROWS))


def test_rows_are_found_in_every_group_once_and_in_order(data: bytes) -> None:
    wanted = ["k199999", "k000000", "k070000", "k000000", "nobody"]
    found = list(rows_where(data, "key", wanted))
    assert found == [{"key": f"k{i:06d}", "number": i} for i in (0, 70_000, 199_999)]
    assert list(rows_where(data, "key", [])) == []
    assert list(rows_where(data, "key", ["k070000"], columns=["number"])) == [{"number": 70_000}]


def test_groups_without_the_wanted_are_not_decoded(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def noting(self: pq.ParquetFile, group: int, **ways: object) -> pa.Table:
        read.append(group)
        return real(self, group, **ways)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noting)
    assert len(list(rows_where(data, "key", ["k070000", "k070001"]))) == 2
    assert read == [1, 1]
    assert list(rows_where(data, "key", ["zebra"])) == []
    assert read == [1, 1]


def test_nothing_is_read_by_threads_that_could_outlive_the_reader(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "t.parquet").write_bytes(data)
    program = (
        "import os, sys\n"
        "from mmcore.core.tables import read_table, rows_where\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "read_table(sys.argv[1])\n"
        "list(rows_where(open(sys.argv[1], 'rb').read(), 'key', ['k070000']))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "t.parquet")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "0\n"
