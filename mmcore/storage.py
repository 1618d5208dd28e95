"""One way to name and touch bytes: local paths, and `s3://` or any other fsspec URL.

Writes are atomic everywhere: a temporary name, fsync and rename on a disk; one PUT in a bucket.
`create` is the commit: of any number of writers exactly one wins.
"""

import errno
import io
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from mmcore.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
_BUFFER_BYTES = 1 << 20
_MAX_PIECES = 512  # written at a time; Linux takes 1024
_REMOTE_BLOCK_BYTES = 8 << 20
_VERSION_FIELDS = (
    "ETag", "etag", "md5Hash", "generation", "mtime",
    "LastModified", "last_modified", "updated", "created",
)  # fmt: skip
"""What says of a remote file that it has changed, the surest first; stores differ in what they
tell."""


@dataclass(frozen=True, slots=True, order=True)
class FileInfo:
    """A file below a directory or prefix."""

    path: str
    """Relative to the directory that was listed."""
    num_bytes: int
    version: str
    """Changes when the file may have changed: mtime in ns on a disk, the ETag in a bucket."""


def is_local(url: str) -> bool:
    """Return whether a URL is a path of this machine."""
    return "://" not in url


def join(url: str, *parts: str) -> str:
    """Append path pieces to a URL.

    >>> join("s3://bucket/data", "train", "train-000000.tar")
    's3://bucket/data/train/train-000000.tar'
    """
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts)])


def read(url: str, *, offset: int = 0, num_bytes: int | None = None) -> bytes:
    """Return a file, or a slice of it; StorageError when it is not there or cannot be read."""
    data = read_if_exists(url, offset=offset, num_bytes=num_bytes)
    if data is None:
        raise StorageError(f"{url} does not exist. Was it moved or deleted after it was found?")
    return data


def read_if_exists(url: str, *, offset: int = 0, num_bytes: int | None = None) -> bytes | None:
    """Return a file or a slice of it, or None when there is no such file."""
    try:
        if is_local(url):
            with open(url, "rb") as file:
                file.seek(offset)
                return file.read(-1 if num_bytes is None else num_bytes)
        end = None if num_bytes is None else offset + num_bytes
        if num_bytes == 0:
            return b""
        data: bytes = _filesystem(url).cat_file(url, start=offset or None, end=end)
        return data
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _storage_error("read", url, error) from error


def open_read(url: str) -> BinaryIO:
    """Open a file for reading in pieces, seekable; StorageError from here and from every read."""
    try:
        if is_local(url):
            file = open(url, "rb", buffering=0)  # noqa: SIM115 - closed by the wrapper
        else:
            remote = {"block_size": _REMOTE_BLOCK_BYTES, "cache_type": "readahead"}
            file = _filesystem(url).open(url, "rb", **remote)
    except (FileNotFoundError, NotADirectoryError):
        raise StorageError(
            f"{url} does not exist. Was it moved or deleted after it was found?"
        ) from None
    except OSError as error:
        raise _storage_error("read", url, error) from error
    return io.BufferedReader(_Reading(url, file), _BUFFER_BYTES)


class _Reading(io.RawIOBase):
    """A file whose faults are told from faults of what is in it: a bad disk is no bad sample."""

    def __init__(self, url: str, file: Any) -> None:
        self._url = url
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._file.readinto(buffer) or 0)
        except OSError as error:
            raise _storage_error("read", self._url, error) from error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return int(self._file.seek(offset, whence))
        except OSError as error:
            raise _storage_error("read", self._url, error) from error

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def exists(url: str) -> bool:
    """Return whether a file is there."""
    if is_local(url):
        return os.path.isfile(url)
    try:
        return bool(_filesystem(url).isfile(url))
    except OSError as error:
        raise _storage_error("look up", url, error) from error


def modified_at(url: str) -> float:
    """Return when a file was last written, in seconds since 1970; StorageError when it is gone."""
    try:
        if is_local(url):
            return os.stat(url).st_mtime
        moment: datetime = _filesystem(url).modified(url)
        return moment.timestamp()
    except OSError as error:
        raise _storage_error("look up", url, error) from error


def write(url: str, data: bytes | list[bytes]) -> None:
    """Write a file so that it is seen whole or not at all, and survives a power cut.

    Data in pieces becomes one file, of which a disk needs no copy.
    """
    pieces = data if isinstance(data, list) else [data]
    try:
        if not is_local(url):
            _filesystem(url).pipe_file(url, b"".join(pieces))
            return
        batches = (pieces[i : i + _MAX_PIECES] for i in range(0, len(pieces), _MAX_PIECES))
        with _temporary_beside(url, batches) as temporary:
            os.replace(temporary.path, url)
    except OSError as error:
        raise _storage_error("write", url, error) from error


def write_pieces(url: str, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file of any size a piece at a time, seen whole or not at all, as `write` does."""
    try:
        if not is_local(url):
            _write_remote(url, pieces)
            return
        with _temporary_beside(url, ([piece] for piece in pieces)) as temporary:
            os.replace(temporary.path, url)
    except OSError as error:
        raise _storage_error("write", url, error) from error


def create(url: str, data: bytes) -> bool:
    """Write a file only if there is none of that name; return whether this call did it.

    On a disk: temporary file, fsync, link(2), fsync of the directory. In a bucket: one PUT with
    `If-None-Match: *`.
    """
    try:
        if not is_local(url):
            return _create_remote(url, data)
        with _temporary_beside(url, [[data]]) as temporary:
            try:
                os.link(temporary.path, url)
            except FileExistsError:
                return False
            return True
    except OSError as error:
        raise _storage_error("create", url, error) from error


def link(source: str, target: str) -> None:
    """Give a file a second name that costs no bytes: a hard link, or a copy within the bucket.

    Only for files that are never written again.
    """
    try:
        if not is_local(target):
            _filesystem(target).copy(source, target)
            return
        directory = os.path.dirname(target) or "."
        os.makedirs(directory, exist_ok=True)
        temporary = os.path.join(directory, temporary_name())
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            write(target, read(source))  # a file system without hard links, or across two of them
            return
        os.replace(temporary, target)
        # of two names for one file rename(2) does nothing and leaves both
        Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise _storage_error("link", target, error) from error


def delete(url: str) -> None:
    """Delete a file; one that is gone already is no error."""
    try:
        if is_local(url):
            Path(url).unlink(missing_ok=True)
        else:
            _filesystem(url).rm_file(url)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _storage_error("delete", url, error) from error


def delete_directory_if_empty(url: str) -> None:
    """Delete a directory that holds nothing; buckets have none."""
    if not is_local(url):
        return
    try:
        os.rmdir(url)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise _storage_error("delete", url, error) from error


def list_files(url: str) -> list[FileInfo]:
    """Return every file below a directory or prefix, sorted by path; empty when there is none."""
    return sorted(iter_files(url))


def iter_files(url: str) -> Iterator[FileInfo]:
    """Yield every file below a directory or prefix, in any order."""
    try:
        yield from _walk_local(url) if is_local(url) else _walk_remote(url)
    except OSError as error:
        raise _storage_error("list", url, error) from error


def list_directories(url: str) -> list[str]:
    """Return the names of the directories directly below a directory or prefix, sorted."""
    try:
        if is_local(url):
            with os.scandir(url) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        listing = _filesystem(url).ls(url, detail=True, refresh=True)
        names = [item["name"].rstrip("/") for item in listing if item["type"] == "directory"]
        return sorted(name.rsplit("/", 1)[-1] for name in names)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _storage_error("list", url, error) from error


def temporary_name() -> str:
    """Return a new name for a temporary file, which says who is writing it."""
    return f"{TEMPORARY_PREFIX}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"


def is_abandoned(path: str) -> bool:
    """Return whether a file is the temporary file of a process of this host that is dead."""
    name = path.rsplit("/", 1)[-1]
    if not name.startswith(TEMPORARY_PREFIX):
        return False
    host, pid, _ = name.removeprefix(TEMPORARY_PREFIX).rsplit("-", 2)
    return host == socket.gethostname() and not os.path.exists(f"/proc/{pid}")


class _temporary_beside:  # noqa: N801 - reads as a function
    """A fully written and synced temporary file in the directory of `url`, gone on leaving."""

    def __init__(self, url: str, batches: Iterable[Sequence[bytes | memoryview]]) -> None:
        self.directory = os.path.dirname(url) or "."
        self.path = os.path.join(self.directory, temporary_name())
        self.batches = batches

    def __enter__(self) -> "_temporary_beside":
        os.makedirs(self.directory, exist_ok=True)
        try:
            with open(self.path, "xb", buffering=0) as file:
                for pieces in self.batches:
                    _write_all(file.fileno(), pieces)
                os.fsync(file.fileno())
        except BaseException:
            # whoever makes the pieces may fail in any way
            Path(self.path).unlink(missing_ok=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        Path(self.path).unlink(missing_ok=True)
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write_all(handle: int, pieces: Sequence[bytes | memoryview]) -> None:
    """Write pieces one after the other without a copy of them in this process."""
    left: list[bytes | memoryview] = [*pieces]
    while left:
        written = os.writev(handle, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = memoryview(left[0])[written:]


def _write_remote(url: str, pieces: Iterable[bytes | memoryview]) -> None:
    file = _filesystem(url).open(url, "wb")
    try:
        for piece in pieces:
            file.write(piece)
    except BaseException:
        file.discard()
        # or what has come so far would be committed when the object goes
        file.closed = True
        raise
    file.close()


def _create_remote(url: str, data: bytes) -> bool:
    try:
        _filesystem(url).pipe_file(url, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        # a 412 without <Condition> (SeaweedFS, Ceph) reaches us as EINVAL
        if error.errno == errno.EINVAL and exists(url):
            return False
        raise
    return True


def _walk_local(root: str) -> Iterator[FileInfo]:
    pending = [""]
    while pending:
        below = pending.pop()
        try:
            entries = os.scandir(os.path.join(root, below))
        except FileNotFoundError:
            continue  # nothing there, or gone since its parent was listed
        with entries:
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif entry.is_file():
                    try:
                        stat = entry.stat()
                    except FileNotFoundError:
                        continue  # a temporary file of another process, renamed by now
                    yield FileInfo(path, stat.st_size, str(stat.st_mtime_ns))


def _walk_remote(url: str) -> Iterator[FileInfo]:
    filesystem = _filesystem(url)
    prefix = filesystem._strip_protocol(url).rstrip("/") + "/"
    filesystem.invalidate_cache()
    for name, info in filesystem.find(prefix, detail=True).items():
        if info["type"] == "file" and not name.endswith("/"):
            yield FileInfo(name.removeprefix(prefix), int(info["size"]), _version(info))


def _version(info: Mapping[str, Any]) -> str:
    found = next((info[name] for name in _VERSION_FIELDS if info.get(name)), "")
    return str(found).strip('"')


@lru_cache(maxsize=16)
def _filesystem_of(protocol: str) -> Any:
    import fsspec  # the door to object stores; local work never pays for it

    options: dict[str, Any] = {}
    if protocol == "s3":
        options = {
            "use_listings_cache": False,
            "config_kwargs": {"retries": {"mode": "adaptive", "max_attempts": 10}},
        }
    return fsspec.filesystem(protocol, **options)


def _filesystem(url: str) -> Any:
    return _filesystem_of(url.split("://", 1)[0])


def _storage_error(verb: str, url: str, error: OSError) -> StorageError:
    remedies = {
        errno.ENOSPC: "The disk is full: free some room and run the same command again; "
        "what was committed is kept.",
        errno.EACCES: "Check the permissions of the directory or the credentials of the bucket.",
        errno.EROFS: "The file system is read-only: choose another root with MM_ROOT.",
        errno.EDQUOT: "The quota is used up: free some room and run the same command again.",
    }
    remedy = remedies.get(error.errno or 0, "Run the same command again when it is back.")
    return StorageError(f"cannot {verb} {url}: {error}. {remedy}")
