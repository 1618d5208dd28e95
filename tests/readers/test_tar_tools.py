import ast
import hashlib
import json
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


def test_dali_index_is_the_one_made_from_the_listing_of_gnu_tar(dataset: Any) -> None:
    """As DALI's own wds2idx does: block numbers and sizes from tar, grouped by what is before the
    first dot."""
    for split in dataset.hashes:
        for path in dataset.tars(split):
            lines: list[list[str]] = []
            last = ""
            for name, offset, num_bytes in listed(path):
                folder, _, file = name.rpartition("/")
                stem, _, extension = file.partition(".")
                if f"{folder}/{stem}" != last:
                    lines.append([])
                last = f"{folder}/{stem}"
                lines[-1].append(f"{extension} {offset} {num_bytes} {name}")
            expected = [f"v1.2 {len(lines)}", *(" ".join(line) for line in lines), ""]
            assert Path(path).with_suffix(".idx").read_text("ascii") == "\n".join(expected)


def listed(path: str) -> list[tuple[str, int, int]]:
    """Return name, offset of the contents and size of each member, as GNU tar says."""
    blocks = output("tar", "--list", "--block-number", "--file", path)
    sizes = output("tar", "--list", "--verbose", "--numeric-owner", "--file", path)
    found = []
    for block, told in zip(blocks, sizes, strict=False):
        number, name = block.removeprefix("block ").split(": ", 1)
        if not name.startswith("**"):
            found.append((name, (int(number) + 1) * 512, int(told.split()[2])))
    return found


def output(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_open_clip_counts_what_lies_in_the_tars_of_a_brace_notation(dataset: Any) -> None:
    """As open_clip's get_dataset_size does: `sizes.json` beside the shards, else `__len__`."""
    for split, expected in dataset.hashes.items():
        shards = dataset.tars(split)
        folder = Path(shards[0]).parent
        sizes = json.loads((folder / "sizes.json").read_text())
        assert sum(int(sizes[Path(shard).name]) for shard in shards) == len(expected)
        assert ast.literal_eval((folder / "__len__").read_text()) == len(expected)
