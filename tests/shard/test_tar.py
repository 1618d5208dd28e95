import io
import tarfile

import pytest

from mmcore.shard.tar import MAX_NAME_BYTES, TarWriter, name_problem

FILES = {
    "a.json": b"{}",
    "a.png": bytes(range(256)) * 5,
    "a.wav": bytes(range(255)) * 33,
    "b.json": b"",
    "c/d.txt": b"x" * 512,
    "k" * 95 + ".txt": b"y" * 513,
}


def tar_of(files: dict[str, bytes]) -> bytes:
    writer = TarWriter()
    for name, data in files.items():
        writer.add(name, data)
    return b"".join(writer.finish())


def test_bytes_are_those_of_tarfile() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert tar_of(FILES) == buffer.getvalue()


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 512, 513, 9216, 9217, 10240])
def test_tar_fills_whole_records_whatever_the_size(num_bytes: int) -> None:
    data = tar_of({"a.bin": bytes(num_bytes)})
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmembers()[0].size == num_bytes


def test_offset_is_where_the_contents_begin() -> None:
    writer = TarWriter()
    members = [writer.add(name, data) for name, data in FILES.items()]
    end = writer.offset
    data = b"".join(writer.finish())
    for member, expected in zip(members, FILES.values(), strict=True):
        assert data[member.offset : member.offset + member.num_bytes] == expected
    assert not any(data[end:])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = [(info.name, info.offset, info.offset_data, info.size) for info in archive]
    assert found == members


def test_no_large_part_is_copied_before_it_is_written() -> None:
    writer = TarWriter()
    data = bytes(range(256)) * 20
    writer.add("a.png", data)
    assert any(piece is data for piece in writer.finish())


@pytest.mark.parametrize(
    ("key", "extension"),
    [("a", "png"), ("x/y/a", "speech.ogg"), ("v1.2/a", "txt"), ("a~b|c-d_e@f", "txt")],
)
def test_name_that_every_reader_takes_is_fine(key: str, extension: str) -> None:
    assert name_problem(key, extension) is None


@pytest.mark.parametrize(
    ("key", "extension", "problem"),
    [
        ("k" * MAX_NAME_BYTES, "txt", "characters"),
        ("a b", "txt", "space"),
        ("a{1}", "txt", "brace"),
        ("caf\u00e9", "txt", "ASCII"),
        ("a\nb", "txt", "ASCII"),
        (".hidden", "txt", "hidden"),
        ("x/.hidden/a", "txt", "hidden"),
        ("__index__", "txt", "reserved"),
        ("../a", "txt", "hidden"),
        ("/a", "txt", "empty"),
        ("x//a", "txt", "empty"),
        ("", "txt", "hidden"),
        ("a.b", "txt", "dots"),
        ("a", "", "another key"),
        ("a", "x..txt", "another key"),
        ("a", "TXT", "lower-case"),
        ("a", "pkl", "executed"),
        ("a", "txt.gz", "unpacked"),
    ],
)
def test_name_that_some_reader_misreads_has_a_problem(
    key: str, extension: str, problem: str
) -> None:
    assert problem in (name_problem(key, extension) or "nothing")


def test_name_at_the_limit_is_fine() -> None:
    assert name_problem("k" * (MAX_NAME_BYTES - 4), "txt") is None
    assert name_problem("k" * (MAX_NAME_BYTES - 3), "txt") is not None
