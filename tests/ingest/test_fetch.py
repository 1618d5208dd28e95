import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mmcore.errors import ConfigError, MmError
from mmcore.ingest.fetch import fetch_stamps

NAME = "tuxpaint-stamps-default_0_all.deb"
needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None or shutil.which("apt-get") is None,
    reason="no dpkg-deb and apt-get on this machine",
)


def build_package(folder: Path, *, inside: str = "usr/share/tuxpaint/stamps") -> Path:
    """Build a Debian package with one stamp in it."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: tuxpaint-stamps-default\nVersion: 0\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: one stamp\n"
    )
    stamp = tree / inside / "animals" / "birds" / "owl.txt"
    stamp.parent.mkdir(parents=True)
    stamp.write_text("An owl.\n")
    cache = folder / "cache"
    cache.mkdir()
    command = ["dpkg-deb", "--build", str(tree), str(cache / NAME)]
    subprocess.run(command, check=True, capture_output=True)
    return cache


@needs_dpkg
def test_a_cached_package_becomes_the_corpus(tmp_path: Path) -> None:
    cache = build_package(tmp_path)
    report = fetch_stamps(str(tmp_path / "new" / "stamps"), cache_directory=str(cache))
    assert (tmp_path / "new/stamps/animals/birds/owl.txt").read_text() == "An owl.\n"
    assert (report.num_files, report.num_bytes, report.was_there) == (1, 8, False)
    assert os.listdir(tmp_path / "new") == ["stamps"]


@needs_dpkg
def test_the_cache_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_CACHE", str(build_package(tmp_path)))
    assert fetch_stamps(str(tmp_path / "stamps")).num_files == 1


@needs_dpkg
def test_another_version_is_used_with_a_warning(tmp_path: Path) -> None:
    cache = build_package(tmp_path)
    report = fetch_stamps(str(tmp_path / "stamps"), cache_directory=str(cache))
    assert "SHA-256" in report.warnings[0]
    assert "warning: " in str(report)


@needs_dpkg
def test_a_second_fetch_does_nothing_and_says_so(tmp_path: Path) -> None:
    cache = build_package(tmp_path)
    fetch_stamps(str(tmp_path / "stamps"), cache_directory=str(cache))
    (cache / NAME).unlink()
    report = fetch_stamps(str(tmp_path / "stamps"), cache_directory=str(cache))
    assert report.was_there
    assert "nothing was done" in str(report)


@needs_dpkg
def test_a_cut_package_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = build_package(tmp_path)
    data = (cache / NAME).read_bytes()
    (cache / NAME).write_bytes(data[: len(data) // 2])
    with pytest.raises(MmError, match="dpkg-deb"):
        fetch_stamps(str(tmp_path / "new" / "stamps"), cache_directory=str(cache))
    assert os.listdir(tmp_path / "new") == []


@needs_dpkg
def test_a_package_without_stamps_is_refused(tmp_path: Path) -> None:
    cache = build_package(tmp_path, inside="usr/share/other")
    with pytest.raises(MmError, match="not the package"):
        fetch_stamps(str(tmp_path / "new" / "stamps"), cache_directory=str(cache))
    assert os.listdir(tmp_path / "new") == []


@needs_dpkg
def test_without_package_lists_private_ones_are_made_and_the_cache_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = build_package(tmp_path) / NAME
    tools = tmp_path / "tools"
    tools.mkdir()
    # stands for apt-get on a machine where nobody ever ran `apt-get update`
    (tools / "apt-get").write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*Dir::State*download*) [ -e {tmp_path}/updated ] && cp {package} . ;;\n"
        f"*Dir::State*update) touch {tmp_path}/updated ;;\n"
        "*) echo 'E: Unable to locate package' >&2; exit 100 ;;\n"
        "esac\n"
    )
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    report = fetch_stamps(str(tmp_path / "stamps"), cache_directory=str(tmp_path / "filled"))
    assert report.num_files == 1
    assert os.listdir(tmp_path / "filled") == [NAME]


@needs_dpkg
def test_a_network_that_is_down_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text("#!/bin/sh\necho 'E: Could not resolve' >&2\nexit 100\n")
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.delenv("MM_CACHE", raising=False)
    with pytest.raises(MmError, match=r"Could not resolve.*network"):
        fetch_stamps(str(tmp_path / "new" / "stamps"))
    assert os.listdir(tmp_path / "new") == []


def test_a_machine_without_the_tools_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MmError, match="apt-get and dpkg-deb not found"):
        fetch_stamps(str(tmp_path / "stamps"))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not the stamps corpus"):
        fetch_stamps(str(tmp_path))
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        fetch_stamps("s3://bucket/stamps")


def test_the_real_package_unpacks_whole(stamps: Path) -> None:
    assert (stamps / "animals" / "birds" / "owl.png").is_file()
    assert len(os.listdir(stamps)) == 16
