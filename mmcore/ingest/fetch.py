"""Corpora that can be fetched: the stamps of Tux Paint, from the Debian archive, without root."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmcore import storage
from mmcore.errors import ConfigError, MmError, StorageError
from mmcore.ingest.stamps import PACKAGE

STAMPS_SHA256 = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
"""Of version 2022.06.04-1, to which the counts in the tests belong."""
_INSIDE = "usr/share/tuxpaint/stamps"
_LANDMARK = "animals/birds"
_APT_OPTIONS = ("-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30")


@dataclass(frozen=True)
class FetchReport:
    """What a fetch did."""

    destination: str
    num_files: int
    num_bytes: int
    was_there: bool
    """The corpus was there already, and nothing was done."""
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = f"{self.num_files} files, {self.num_bytes / 1e6:.0f} MB"
        done = "was there already; nothing was done" if self.was_there else "fetched"
        lines = [f"{self.destination}: {done} ({size})"]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def fetch_stamps(destination: str, *, cache_directory: str | None = None) -> FetchReport:
    """Put the stamps into a new folder, whole or not at all: 161 MB to fetch, 217 MB unpacked.

    The package is taken from `cache_directory` (MM_CACHE unless given) when it is there, and kept
    there when it had to be fetched.
    """
    if not storage.is_local(destination):
        raise ConfigError(
            f"{destination} is not a folder of this machine. Fetch into one, then copy it."
        )
    target = Path(destination)
    if _is_taken(target):
        return _report(target, was_there=True)
    tools = {name: shutil.which(name) for name in ("apt-get", "dpkg-deb")}
    missing = sorted(name for name, path in tools.items() if path is None)
    if missing:
        raise MmError(
            f"{' and '.join(missing)} not found: the stamps come as a Debian package. Run this on "
            f"Debian or Ubuntu and copy the folder, or unpack {PACKAGE}_2022.06.04-1_all.deb "
            f"yourself and move its {_INSIDE} to {destination}."
        )
    cache = cache_directory or os.environ.get("MM_CACHE")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_directory(target.parent) as work:
            package = _package(work, Path(cache) if cache else None)
            warnings = _warnings(package)
            _run(["dpkg-deb", "-x", str(package), str(work / "unpacked")])
            unpacked = work / "unpacked" / _INSIDE
            if not (unpacked / _LANDMARK).is_dir():
                raise MmError(
                    f"{package.name} holds no {_INSIDE}/{_LANDMARK}: it is not the package that "
                    "was asked for. Delete it from the cache, if it came from there."
                )
            os.rename(unpacked, target)
    except OSError as error:
        raise StorageError(
            f"cannot fetch into {destination}: {error}. Nothing was left behind; free some room or "
            "check the permissions, and run it again."
        ) from error
    return _report(target, was_there=False, warnings=warnings)


def _is_taken(target: Path) -> bool:
    """Return whether the corpus is there; ConfigError when something else is."""
    if (target / _LANDMARK).is_dir():
        return True
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            f"{target} exists and is not the stamps corpus. Name a folder that does not exist yet."
        )
    return False


def _package(work: Path, cache: Path | None) -> Path:
    """Return the .deb: from the cache, or fetched, and then kept in the cache."""
    if cache is not None:
        cached = sorted(cache.glob(f"{PACKAGE}_*.deb"))
        if cached:
            return cached[-1]
    fetched = _download(work)
    if cache is None:
        return fetched
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / storage.temporary_name()
    try:
        shutil.copyfile(fetched, partial)
        os.replace(partial, cache / fetched.name)
    finally:
        partial.unlink(missing_ok=True)
    return cache / fetched.name


def _download(work: Path) -> Path:
    """Fetch the .deb with the package lists of this machine, or, without any, with private ones."""
    folder = work / "download"
    folder.mkdir()
    command = ["apt-get", *_APT_OPTIONS, "download", PACKAGE]
    if _tries(command, folder) is not None:
        for name in ("state/lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        private = [
            "-o",
            f"Dir::State={work / 'state'}",
            "-o",
            f"Dir::Cache={work / 'cache'}",
        ]
        _run(["apt-get", *_APT_OPTIONS, *private, "update"], folder)
        _run(["apt-get", *_APT_OPTIONS, *private, "download", PACKAGE], folder)
    found = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if not found:
        raise MmError(f"apt-get download {PACKAGE} said it went well and left no .deb. Try again.")
    return found[0]


def _warnings(package: Path) -> tuple[str, ...]:
    with package.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == STAMPS_SHA256:
        return ()
    warning = (
        f"{package.name} has the SHA-256 {digest}, not {STAMPS_SHA256}: another version of the "
        "stamps. It is used; counts may differ from the documentation."
    )
    return (warning,)


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    problem = _tries(command, folder)
    if problem is not None:
        raise MmError(
            f"{' '.join(command)} failed: {problem}. Nothing was left behind. Check the network "
            "and the package sources (/etc/apt), then run it again; a .deb that you have may lie "
            "in the folder that MM_CACHE names."
        )


def _tries(command: Sequence[str], folder: Path | None) -> str | None:
    """Run a command; return None when it went well, or else the end of what it said."""
    # the words are ours, and no shell reads them
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "; ".join(lines[-2:]) or f"exit code {done.returncode}"


@contextmanager
def _temporary_directory(parent: Path) -> Iterator[Path]:
    work = parent.resolve() / storage.temporary_name()
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work)


def _report(target: Path, *, was_there: bool, warnings: tuple[str, ...] = ()) -> FetchReport:
    files = storage.list_files(str(target))
    num_bytes = sum(file.num_bytes for file in files)
    return FetchReport(str(target), len(files), num_bytes, was_there, warnings)
