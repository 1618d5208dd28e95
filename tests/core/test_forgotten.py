from pathlib import Path
from typing import Any

import pytest

from mmcore.core.forgotten import (
    NOTHING,
    hidden_keys,
    load_forgotten,
    principal_sha256,
    record_wish,
)
from mmcore.errors import IntegrityError
from mmcore.sample import Part, Sample, sha256_hex

WISH: dict[str, Any] = {"by": "Ann", "why": "a letter", "versions": ("pets/aa",), "models": ()}


def sample(key: str = "a", **parts: bytes) -> Sample:
    return Sample(key, {name.replace("_", "."): Part(data=data) for name, data in parts.items()})


def test_a_sample_is_known_again_by_its_picture_then_film_then_sound_then_text() -> None:
    assert principal_sha256(sample(txt=b"t", flac=b"s", png=b"p")) == sha256_hex(b"p")
    assert principal_sha256(sample(txt=b"t", flac=b"s", mp4=b"v")) == sha256_hex(b"v")
    assert principal_sha256(sample(txt=b"t", flac=b"s")) == sha256_hex(b"s")
    assert principal_sha256(sample(txt=b"t")) == sha256_hex(b"t")
    assert principal_sha256(sample(json=b"{}")) == ""


def test_nothing_is_forgotten_where_nobody_asked(tmp_path: Path) -> None:
    assert load_forgotten(str(tmp_path), "pets") == NOTHING
    assert NOTHING.digest is None
    assert not NOTHING.holds(sample(txt=b""))


def test_wishes_add_up_and_are_obeyed_by_key_and_by_bytes(tmp_path: Path) -> None:
    root = str(tmp_path)
    record_wish(root, "pets", samples={"a": (sha256_hex(b"p"),)}, **WISH)
    first = load_forgotten(root, "pets")
    record_wish(root, "pets", samples={"b": ()}, **WISH)
    forgotten = load_forgotten(root, "pets")
    assert forgotten.keys == {"a", "b"}
    assert forgotten.holds(sample("a", png=b"x"))
    assert forgotten.holds(sample("z", png=b"p", txt=b"another caption"))
    assert not forgotten.holds(sample("z", png=b"x"))
    assert not forgotten.holds(sample("z", json=b"{}"))  # no part is not the same part
    assert first.digest != forgotten.digest
    assert load_forgotten(root, "birds") == NOTHING


def test_equal_wishes_mean_the_same_in_a_fingerprint_whenever_they_were_made(
    tmp_path: Path,
) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    for root, names in ((one, "ab"), (two, "ba")):
        for name in names:
            record_wish(root, "pets", samples={name: (name * 64,)}, **WISH)
    assert load_forgotten(one, "pets").digest == load_forgotten(two, "pets").digest


def test_readers_of_a_version_find_the_ledger_of_its_root(tmp_path: Path) -> None:
    record_wish(str(tmp_path), "pets", samples={"a": ()}, **WISH)
    assert hidden_keys(f"{tmp_path}/ds/pets/0123") == {"a"}
    assert hidden_keys(f"{tmp_path}/ds/birds/0123") == frozenset()
    assert hidden_keys(str(tmp_path / "elsewhere")) == frozenset()


def test_a_ledger_that_cannot_be_read_stops_readers(tmp_path: Path) -> None:
    record_wish(str(tmp_path), "pets", samples={"a": ()}, **WISH)
    (file,) = (tmp_path / "forgotten/pets").iterdir()
    file.write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="Put the file back"):
        hidden_keys(f"{tmp_path}/ds/pets/0123")
