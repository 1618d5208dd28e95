"""Storage, on a disk and on a real S3 server: the same promises."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmcore import storage
from mmcore.errors import StorageError


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "root")
    bucket: str = request.getfixturevalue("bucket")
    return bucket


def test_what_was_written_is_read_back_whole_and_in_slices(place: str) -> None:
    url = storage.join(place, "a", "b.bin")
    storage.write(url, b"0123456789")
    assert storage.read(url) == b"0123456789"
    assert storage.read(url, offset=3, num_bytes=4) == b"3456"
    assert storage.read(url, offset=3, num_bytes=0) == b""
    assert storage.exists(url)
    assert storage.modified_at(url) > 1.7e9


def test_data_in_pieces_is_one_file(place: str) -> None:
    url = storage.join(place, "joined.bin")
    storage.write(url, [b"ab", b"", b"c" * 2_000_000, b"d"])
    assert storage.read(url) == b"ab" + b"c" * 2_000_000 + b"d"


def test_pieces_become_one_file_and_nothing_is_left_where_they_fail(place: str) -> None:
    pieces = [b"x" * 3_000_000, b"y" * 3_000_000]
    url = storage.join(place, "pieces.bin")
    storage.write_pieces(url, iter(pieces))
    assert storage.read(url) == b"".join(pieces)

    def failing() -> Iterator[bytes]:
        yield from pieces * 3
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        storage.write_pieces(storage.join(place, "half.bin"), failing())
    assert [file.path for file in storage.list_files(place)] == ["pieces.bin"]


def test_a_file_that_is_not_there_is_none_or_an_error_that_names_it(place: str) -> None:
    url = storage.join(place, "nothing")
    assert storage.read_if_exists(url) is None
    assert not storage.exists(url)
    with pytest.raises(StorageError, match="nothing does not exist"):
        storage.read(url)


def test_create_never_replaces_and_one_of_many_writers_wins(place: str) -> None:
    url = storage.join(place, "manifest.json")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: storage.create(url, str(i).encode()), range(8)))
    assert sum(won) == 1
    assert storage.read(url) == str(won.index(True)).encode()
    assert not storage.create(url, b"late")


def test_listing_is_sorted_relative_and_deep(place: str) -> None:
    for name in ("b/2", "a", "b/1"):
        storage.write(storage.join(place, name), name.encode())
    listed = storage.list_files(place)
    assert [file.path for file in listed] == ["a", "b/1", "b/2"]
    assert [file.num_bytes for file in listed] == [1, 3, 3]
    assert storage.list_directories(place) == ["b"]


def test_listing_nothing_is_empty(place: str) -> None:
    assert storage.list_files(storage.join(place, "none")) == []
    assert storage.list_directories(storage.join(place, "none")) == []


def test_a_changed_file_has_another_version(place: str) -> None:
    url = storage.join(place, "file")
    storage.write(url, b"one")
    before = storage.list_files(place)
    storage.write(url, b"two")
    assert storage.list_files(place) != before


def test_deleting_twice_is_no_error(place: str) -> None:
    url = storage.join(place, "file")
    storage.write(url, b"x")
    storage.delete(url)
    storage.delete(url)
    assert not storage.exists(url)


def test_a_full_disk_is_an_error_that_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(StorageError, match="disk is full") as caught:
            storage.write(str(small / "big"), b"x" * 200_000)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_file_is_whole_where_the_system_takes_only_a_part_of_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = os.writev

    def sparing(handle: int, pieces: Sequence[bytes]) -> int:
        return given(handle, [b"".join(pieces)[:3]])

    monkeypatch.setattr(os, "writev", sparing)
    storage.write(str(tmp_path / "a"), [b"", b"ab", b"cdefg", b"", b"h"])
    assert (tmp_path / "a").read_bytes() == b"abcdefgh"


def test_file_of_more_pieces_than_a_call_takes_is_whole(tmp_path: Path) -> None:
    pieces = [bytes([number % 256]) for number in range(3000)]
    storage.write(str(tmp_path / "a"), pieces)
    assert (tmp_path / "a").read_bytes() == b"".join(pieces)


def test_the_temporary_file_of_a_dead_process_is_abandoned_and_of_a_living_one_is_not() -> None:
    program = "from mmcore import storage; print(storage.temporary_name())"
    dead = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert storage.is_abandoned(f"train/{dead.stdout.decode().strip()}")
    assert not storage.is_abandoned(f"train/{storage.temporary_name()}")
    assert not storage.is_abandoned("train/train-000000.tar")


def test_a_file_is_read_in_pieces_and_from_anywhere(place: str) -> None:
    url = storage.join(place, "long")
    storage.write(url, bytes(range(256)) * 64)
    with storage.open_read(url) as file:
        assert file.read(3) == b"\0\1\2"
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"\xfe\xff"
        assert file.tell() == 256 * 64


def test_opening_what_is_not_there_is_an_error_of_storage(place: str) -> None:
    with pytest.raises(StorageError, match="nothing does not exist"):
        storage.open_read(storage.join(place, "nothing"))


def test_a_disk_that_fails_while_a_file_is_read_is_an_error_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with storage.open_read(str(tmp_path / "file")) as file:
        raw = file.raw  # type: ignore[attr-defined]

        def broken(_: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        kept = {"readinto": lambda _, buffer: broken(buffer), "close": lambda _: None}
        monkeypatch.setattr(raw, "_file", type("Broken", (), kept)())
        with pytest.raises(StorageError, match="cannot read"):
            file.read(1)


def test_of_other_stores_too_a_changed_file_has_another_version(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/file"
    versions = set()
    for content in (b"one", b"two"):
        storage.write(url, content)
        versions |= {file.version for file in storage.list_files(f"memory://{tmp_path.name}")}
    assert len(versions) == 2
    assert "" not in versions
