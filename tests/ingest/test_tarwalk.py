"""Tars of strangers: read to the last byte, or to where they are broken, and never further."""

import contextlib
import io
import random
import tarfile

import pytest
from tars import make_tar

from mmcore.ingest.tarwalk import Member, TarBroken, walk
from mmcore.sample import sha256_hex

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "folder-" + "y" * 60 + "/" + "x" * 60 + ".jpg"


def read(data: bytes) -> list[Member]:
    return list(walk("a.tar", io.BytesIO(data), is_wanted=lambda _name, _num_bytes: True))


@pytest.mark.parametrize("form", FORMATS)
def test_every_file_is_found_with_its_place_and_hash(form: int) -> None:
    contents = [("a.jpg", b"x" * 700), ("b/c.txt", b""), ("b/d.json", b"{}")]
    data = make_tar(contents, form=form)
    members = read(data)
    assert [(member.name, member.data) for member in members] == contents
    for member, (_, content) in zip(members, contents, strict=True):
        assert data[member.offset : member.offset + member.num_bytes] == content
        assert member.sha256 == sha256_hex(content)
        assert not member.refused


@pytest.mark.parametrize("form", FORMATS)
def test_long_names_are_read_in_every_dialect(form: int) -> None:
    assert [
        member.name for member in read(make_tar([(LONG, b"1"), ("b.jpg", b"2")], form=form))
    ] == [
        LONG,
        "b.jpg",
    ]


@pytest.mark.parametrize("form", FORMATS[1:])
def test_a_name_in_another_script_is_read(form: int) -> None:
    (member,) = read(make_tar([("caf\u00e9/\u732b.jpg", b"1")], form=form))
    assert member.name == "caf\u00e9/\u732b.jpg"


def test_directories_are_passed_over() -> None:
    folder = make_tar([("b", b"")], type=tarfile.DIRTYPE)
    assert read(folder) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.jpg", "a/../../up.jpg", "a\nb.jpg"])
def test_a_name_that_leads_elsewhere_is_refused_and_the_next_member_is_read(name: str) -> None:
    bad, good = read(make_tar([(name, b"1"), ("good.jpg", b"2")]))
    assert bad.refused
    assert bad.data is None
    assert (good.name, good.refused) == ("good.jpg", "")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
    ],
)
def test_links_and_devices_are_refused(kind: bytes, said: str) -> None:
    (member,) = read(make_tar([("a.jpg", b"")], type=kind, linkname="/etc/passwd"))
    assert said in member.refused


def test_bytes_that_nobody_asked_for_are_not_kept() -> None:
    data = make_tar([("a.jpg", b"1"), ("a.json", b"{}")])
    members = list(walk("a.tar", io.BytesIO(data), is_wanted=lambda name, _: name.endswith("json")))
    assert [member.data for member in members] == [None, b"{}"]


def test_wherever_a_tar_is_cut_it_is_said_to_be_cut() -> None:
    data = make_tar([(f"{i}.jpg", bytes([i]) * 300 * i) for i in range(6)])
    end = data.rstrip(b"\0")
    length = len(end) + -len(end) % 512  # the end marker begins here
    rng = random.Random(5)
    for cut in [0, 1, 511, 512, 513, length, *(rng.randrange(length) for _ in range(200))]:
        with pytest.raises(TarBroken) as caught:
            read(data[:cut])
        assert caught.value.reason == "tar_truncated", cut


def test_a_cut_names_the_member_that_it_cuts() -> None:
    data = make_tar([("a.jpg", b"x" * 2000)])
    with pytest.raises(TarBroken) as caught:
        read(data[:1000])
    assert caught.value.name == "a.jpg"


def test_a_header_that_was_changed_ends_the_walk() -> None:
    data = bytearray(make_tar([("a.jpg", b"1"), ("b.jpg", b"2")]))
    data[1024 + 3] ^= 1
    members = walk("a.tar", io.BytesIO(bytes(data)), is_wanted=lambda _name, _num: False)
    assert next(members).name == "a.jpg"
    with pytest.raises(TarBroken, match="tar_unreadable"):
        next(members)


def test_whatever_is_flipped_the_walk_ends_with_members_or_with_what_is_broken() -> None:
    data = make_tar([("a.jpg", b"1" * 600), (LONG, b"2")], form=tarfile.PAX_FORMAT)
    rng = random.Random(7)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        with contextlib.suppress(TarBroken):
            for member in walk(
                "a.tar", io.BytesIO(changed), is_wanted=lambda _name, _num_bytes: True
            ):
                assert member.offset + member.num_bytes <= len(data)


def test_a_header_that_promises_a_gigabyte_of_names_is_refused() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with pytest.raises(TarBroken, match="tar_unreadable"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize("data", [b"<html>not a tar</html>" * 40, b"\x1f\x8b\x08" + bytes(700)])
def test_what_is_no_tar_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(TarBroken, match="tar_unreadable"):
        read(data)
