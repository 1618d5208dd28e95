"""A disk that is full, and a bucket instead of a disk."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import run_mm
from corpus import write_corpus, write_recipe

from mmcore import storage
from mmcore.sample import sha256_hex


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("tiny")
    return str(write_recipe(directory / "tiny.yaml", write_corpus(directory / "corpus")))


@pytest.fixture(scope="session")
def on_disk(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = str(tmp_path_factory.mktemp("disk") / "root")
    assert run_mm("run", recipe, "--root", root, "--workers", "1").code == 0
    return hashes_below(root)


def hashes_below(root: str) -> dict[str, str]:
    """SHA-256 of every file of every artifact below a root of any kind."""
    return {
        file.path: sha256_hex(storage.read(storage.join(root, file.path)))
        for file in storage.list_files(root)
        if file.path.split("/")[0] not in ("state", "runs", "leases")
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 KB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_clear_error_and_with_more_room_the_run_goes_on(
    small_disk: Path, recipe: str, on_disk: dict[str, str]
) -> None:
    root = str(small_disk / "root")
    said = run_mm("run", recipe, "--root", root, "--workers", "1")
    assert (said.code, said.out) == (1, "")
    assert said.err.count("The disk is full") == 1
    assert "Traceback" not in said.err
    finished = {line.split(":")[0] for line in said.err.splitlines() if ": done in" in line}
    assert "ingest" in finished
    assert not [
        file.path for file in storage.list_files(root) if storage.TEMPORARY_PREFIX in file.path
    ]
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    again = run_mm("run", recipe, "--root", root, "--workers", "1")
    assert again.code == 0, again.err
    assert "ingest: there already" in again.err
    assert hashes_below(root) == on_disk


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_bucket_holds_the_same_bytes_as_a_disk_and_a_second_run_does_nothing(
    bucket: str, recipe: str, on_disk: dict[str, str]
) -> None:
    said = run_mm("run", recipe, "--root", bucket, "--workers", "1", "--json")
    assert said.code == 0, said.err
    assert said.json()["dataset_url"].startswith(f"{bucket}/ds/tiny/")
    assert hashes_below(bucket) == on_disk
    assert run_mm("run", recipe, "--root", bucket).code == 4
    assert run_mm("verify", "--root", bucket).code == 0
    story = run_mm("explain", "red__000", "--root", bucket, "--json").json()["samples"][0]
    assert story["shard"]["url"].startswith(bucket)
