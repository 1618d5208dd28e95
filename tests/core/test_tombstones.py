from pathlib import Path

import pytest

from mmcore.core.tombstones import Tombstone, from_json, read_tombstones, to_json
from mmcore.errors import IntegrityError

ONE = Tombstone("train/train-000000.tar", 3, "red__002", "removed")
TWO = Tombstone("train/train-000000.tar", 1, "blue", "changed")


def test_equal_sets_are_equal_bytes_whatever_their_order() -> None:
    assert to_json([ONE, TWO]) == to_json([TWO, ONE, TWO])
    assert from_json(to_json([ONE, TWO]), where="here") == [TWO, ONE]
    assert from_json(to_json([]), where="here") == []


def test_a_version_without_the_file_has_no_tombstones(tmp_path: Path) -> None:
    assert read_tombstones(str(tmp_path)) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", to_json([ONE]).replace(b": 1", b": 2", 1)])
def test_a_file_that_cannot_be_read_is_refused_not_passed_over(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tombstones.json").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"tombstones\.json is not a list of tombstones"):
        read_tombstones(str(tmp_path))
