"""WebDataset tars as a source: every part kept where it lies, every member accounted for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from media import png
from tars import make_tar

from mmcore.core.rows import Row, load_part
from mmcore.core.step import Artifact
from mmcore.errors import ConfigError, IntegrityError
from mmcore.ingest import work
from mmcore.ingest.webdataset import WebdatasetLayout
from mmcore.sample import sha256_hex

Ingest = Callable[..., tuple[Artifact, list[Row]]]


def sample(stem: str, number: int = 0, **told: object) -> list[tuple[str, bytes]]:
    return [
        (f"{stem}.png", png(number)),
        (f"{stem}.seg.png", png(number + 1)),
        (f"{stem}.json", json.dumps(told).encode()),
    ]


@pytest.fixture
def tars(tmp_path: Path) -> Callable[..., Path]:
    def write(**contents: bytes) -> Path:
        for name, data in contents.items():
            path = tmp_path / "tars" / f"{name}.tar"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "tars"

    return write


def fates(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.sample.key, row.reason or row.status) for row in rows]


def test_every_part_is_kept_where_it_lies(tars: Callable[..., Path], ingest: Ingest) -> None:
    folder = tars(a=make_tar([*sample("000", 1, caption="An owl."), ("000.npy", b"\x93NUMPY")]))
    artifact, (row,) = ingest(folder, WebdatasetLayout(licence="CC0-1.0"))
    assert sorted(row.sample.parts) == ["npy", "png", "seg.png"]
    bases = {"source": str(folder), "ingest": artifact.url}
    for extension, content in (("png", png(1)), ("seg.png", png(2)), ("npy", b"\x93NUMPY")):
        part = row.sample.parts[extension]
        assert part.ref is not None
        assert (part.ref.base, part.ref.path) == ("source", "a.tar")
        assert load_part(part, bases) == content
    meta: Any = row.sample.meta
    assert (meta["caption"], meta["licence"], meta["original_key"]) == ("An owl.", "CC0-1.0", "000")
    assert meta["source"] == "a.tar/000"
    assert meta["original_sha256"]["png"] == sha256_hex(png(1))


def test_a_caption_and_a_label_come_from_the_metadata(
    tars: Callable[..., Path], ingest: Ingest
) -> None:
    folder = tars(a=make_tar(sample("000", captions=["One.", "Two."], kind={"name": "bird"})))
    layout = WebdatasetLayout(caption_from="json:captions", label_from="json:kind.name")
    artifact, (row,) = ingest(folder, layout)
    assert load_part(row.sample.parts["txt"], {"ingest": artifact.url}) == b"One."
    assert (row.sample.meta["label"], row.sample.meta["captions"]) == ("bird", ["One.", "Two."])


def test_the_class_of_a_sample_is_its_cls(tars: Callable[..., Path], ingest: Ingest) -> None:
    folder = tars(a=make_tar([("0.png", png()), ("0.cls", b"7\n"), ("1.png", png(1))]))
    _, (first, second) = ingest(folder, WebdatasetLayout(label_from="cls"))
    assert first.sample.meta["label"] == "7"
    assert (second.status, second.reason) == ("quarantined", "label_missing")


def test_members_of_a_sample_may_lie_apart(tars: Callable[..., Path], ingest: Ingest) -> None:
    one, two = sample("000", 1), sample("001", 2)
    mixed = [one[0], two[0], two[1], one[2], two[2], one[1]]
    _, rows = ingest(tars(a=make_tar(mixed)), WebdatasetLayout())
    assert [sorted(row.sample.parts) for row in rows] == [["png", "seg.png"]] * 2


def test_equal_names_in_two_tars_are_two_samples(tars: Callable[..., Path], ingest: Ingest) -> None:
    folder = tars(a=make_tar(sample("000")), b=make_tar(sample("000", 9)))
    _, rows = ingest(folder, WebdatasetLayout())
    assert fates(rows) == [("a__000", "kept"), ("b__000", "kept")]


def test_a_slash_in_a_name_is_not_taken_for_one_in_a_path(tmp_path: Path, ingest: Ingest) -> None:
    (tmp_path / "tars" / "a").mkdir(parents=True)
    (tmp_path / "tars" / "a.tar").write_bytes(make_tar([("b/0.png", png())]))
    (tmp_path / "tars" / "a" / "b.tar").write_bytes(make_tar([("0.png", png(1))]))
    _, rows = ingest(tmp_path / "tars", WebdatasetLayout())
    assert len({row.sample.key for row in rows}) == 2
    assert all(row.status == "kept" for row in rows)


def test_what_cannot_be_used_is_quarantined_under_its_reason(
    tars: Callable[..., Path], ingest: Ingest
) -> None:
    members = [
        *sample("good"),
        ("../up.png", png()),
        ("twice.png", png()),
        ("twice.PNG", png(1)),
        ("alone.json", b"{}"),
        ("bad.png", png()),
        ("bad.json", b"{"),
        ("odd.p$g", b"1"),
    ]
    artifact, rows = ingest(tars(a=make_tar(members)), WebdatasetLayout())
    assert [row.reason for row in rows] == [
        "", "tar_member_refused", "part_ambiguous", "sidecar_alone", "metadata_unreadable",
        "tar_member_refused",
    ]  # fmt: skip
    assert artifact.manifest.counts.found == 6


def test_what_readers_skip_is_left_aside_with_a_reason(
    tars: Callable[..., Path], ingest: Ingest
) -> None:
    members = [*sample("000"), ("._000.png", b"x"), ("README", b"x"), ("__meta__/0.json", b"{}")]
    artifact, rows = ingest(tars(a=make_tar(members)), WebdatasetLayout())
    assert len(rows) == 1
    assert artifact.manifest.facts["unclaimed"] == {
        "hidden": 1,
        "no_extension": 1,
        "reserved_name": 1,
    }


def test_of_a_cut_tar_the_sample_at_the_cut_alone_is_lost(
    tars: Callable[..., Path], ingest: Ingest
) -> None:
    whole = make_tar([*sample("000"), *sample("001")])
    _, rows = ingest(tars(a=whole[: 512 * 9]), WebdatasetLayout())
    assert fates(rows) == [("a__000", "kept"), ("a__001", "tar_truncated")]


@pytest.mark.parametrize("data", [b"", b"no tar" * 100, b"\x1f\x8b" + bytes(600)])
def test_a_file_that_is_no_tar_is_one_broken_sample(
    tars: Callable[..., Path], ingest: Ingest, data: bytes
) -> None:
    _, rows = ingest(tars(a=data, b=make_tar(sample("0"))), WebdatasetLayout())
    assert [row.status for row in rows] == ["quarantined", "kept"]
    assert rows[0].reason in ("tar_truncated", "tar_unreadable")


def test_other_files_beside_the_tars_are_left_aside(
    tars: Callable[..., Path], ingest: Ingest
) -> None:
    folder = tars(a=make_tar(sample("0")))
    (folder / "sizes.json").write_text("{}")
    artifact, _ = ingest(folder, WebdatasetLayout())
    assert artifact.manifest.facts["unclaimed"] == {"no_tar": 1}


def test_a_tar_that_changes_after_the_scan_ends_the_run(
    tars: Callable[..., Path], ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tars(a=make_tar(sample("0")))
    real = work.opened

    def changed(*given: Any) -> Any:
        (folder / "a.tar").write_bytes(make_tar(sample("1")))
        return real(*given)

    monkeypatch.setattr(work, "opened", changed)
    with pytest.raises(IntegrityError, match="run again"):
        ingest(folder, WebdatasetLayout())


def test_the_parts_of_the_artifact_hold_as_many_samples_as_asked(
    tars: Callable[..., Path], ingest: Ingest
) -> None:
    folder = tars(a=make_tar([(f"{i}.png", png(i)) for i in range(5)]))
    artifact, rows = ingest(folder, WebdatasetLayout(), samples_per_task=2)
    sizes = [file.num_samples for file in artifact.manifest.files if file.num_samples]
    assert sizes == [2, 2, 1]
    assert len(rows) == 5


def test_the_samples_of_a_tar_are_counted_when_it_is_scanned(tars: Callable[..., Path]) -> None:
    data = make_tar([*sample("0"), *sample("1"), ("README", b"")])
    path = tars(a=data) / "a.tar"
    with path.open("rb") as stream:
        assert WebdatasetLayout().count("a.tar", stream) == 2
        assert WebdatasetLayout().count("a.txt", stream) is None


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="caption_from"):
        WebdatasetLayout(caption_from="txt")
