"""What counts as complete, and what as still being written."""

import os
from pathlib import Path

import pytest

from mmcore.operate.quiet import Settling, is_temporary, open_for_writing
from mmcore.storage import FileInfo


def test_a_file_has_settled_when_it_stood_still_for_long_enough() -> None:
    settling = Settling(2.0)
    file = FileInfo("a.png", 10, "1")
    assert settling.look([file], now=0.0) == []
    assert settling.look([file], now=1.9) == []
    assert settling.look([file], now=2.0) == [file]


@pytest.mark.parametrize("changed", [FileInfo("a.png", 11, "1"), FileInfo("a.png", 10, "2")])
def test_a_file_that_changes_begins_to_settle_anew(changed: FileInfo) -> None:
    settling = Settling(2.0)
    settling.look([FileInfo("a.png", 10, "1")], now=0.0)
    assert settling.look([changed], now=1.5) == []
    assert settling.look([changed], now=2.5) == []
    assert settling.look([changed], now=3.5) == [changed]


def test_a_file_that_went_and_came_back_begins_to_settle_anew() -> None:
    settling = Settling(2.0)
    file = FileInfo("a.png", 10, "1")
    settling.look([file], now=0.0)
    settling.look([], now=1.0)
    assert settling.look([file], now=2.5) == []


@pytest.mark.parametrize(
    "path",
    ["a.part", "x/a.png.tmp", ".a.png", ".hidden/a.png", "a.crdownload", "a~", "x/.tmp-h-1-u"],
)
def test_a_temporary_name_never_settles(path: str) -> None:
    settling = Settling(0.0)
    assert is_temporary(path)
    assert settling.look([FileInfo(path, 10, "1")], now=100.0) == []


@pytest.mark.parametrize("path", ["a.png", "party/a.parts.png", "tmp/a.png", "a.b.c.flac"])
def test_an_ordinary_name_is_not_taken_for_a_temporary_one(path: str) -> None:
    assert not is_temporary(path)


def test_a_file_is_written_while_a_process_has_it_open_for_writing(tmp_path: Path) -> None:
    written, read, closed = (str(tmp_path / name) for name in ("written", "read", "closed"))
    for path in (written, read, closed):
        Path(path).write_bytes(b"data")
    os.symlink(written, tmp_path / "link")
    with open(written, "ab"), open(read, "rb"):
        paths = [written, read, closed, str(tmp_path / "gone")]
        assert open_for_writing(paths) == {written}
        assert open_for_writing([str(tmp_path / "link")]) == {str(tmp_path / "link")}
    assert open_for_writing([written, read, closed]) == set()
