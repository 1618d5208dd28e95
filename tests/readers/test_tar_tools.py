import hashlib
import subprocess
import tarfile
from pathlib import Path
from typing import Any


def by_key(names_and_data: list[tuple[str, bytes]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, data in names_and_data:
        folder, _, file = name.rpartition("/")
        stem, _, extension = file.partition(".")
        found.setdefault(f"{folder}/{stem}", {})[extension] = hashlib.sha256(data).hexdigest()
    return found


def test_dataset_holds_what_went_in(dataset: Any) -> None:
    stored = {
        key: {extension: value for extension, value in parts.items() if extension != "json"}
        for hashes in dataset.hashes.values()
        for key, parts in hashes.items()
    }
    assert stored == dataset.inputs
    assert {split: len(keys) for split, keys in dataset.hashes.items()} == {
        "train": 24,
        "val": 8,
        "test": 8,
    }


def test_tarfile_reads_the_same_bytes(dataset: Any) -> None:
    for split, expected in dataset.hashes.items():
        members = []
        for path in dataset.tars(split):
            with tarfile.open(path) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    members.append((member.name, file.read()))
        assert by_key(members) == expected


def test_gnu_tar_reads_the_same_bytes_without_a_word(dataset: Any, tmp_path: Path) -> None:
    for split, expected in dataset.hashes.items():
        target = tmp_path / split
        target.mkdir()
        for path in dataset.tars(split):
            done = subprocess.run(
                ["tar", "-xf", path, "-C", str(target)], check=True, capture_output=True
            )
            assert done.stderr == b""
        files = [path for path in target.rglob("*") if path.is_file()]
        members = [(str(path.relative_to(target)), path.read_bytes()) for path in files]
        assert by_key(members) == expected
