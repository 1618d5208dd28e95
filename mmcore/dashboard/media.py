"""Bytes of samples for the browser: pictures, sound, video and text, checked before they leave.

What is asked for is a part of a sample that the index knows; no address holds a path. The type
follows from the extension by a fixed table, and what a browser could run is never shown in place.
"""

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mmcore import storage
from mmcore.dashboard.index.datasets import Dataset
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.store import SampleDatabase
from mmcore.errors import IntegrityError, SampleError
from mmcore.media.image import decode_image, encode_jpeg
from mmcore.media.resize import fit_within
from mmcore.sample import PartRef, modality_of, sha256_hex

TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
    "txt": "text/plain; charset=utf-8",
    "json": "text/plain; charset=utf-8",
    # pictures that may hold scripts are text here
    "svg": "text/plain; charset=utf-8",
}
"""What may be shown in place, by the last piece of the extension; all else is a download."""
THUMBNAIL_SIDE = 320
_SMALL_BYTES = 24 * 1024
_CHUNK_BYTES = 1 << 20
_MAX_WHOLE_BYTES = 16 << 20
_MAX_CACHED_BYTES = 64 << 20
_MAX_VERIFIED = 4096
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    # an address names a version, and versions never change
    "cache-control": "private, max-age=31536000, immutable",
}


@dataclass(frozen=True, slots=True)
class StoredPart:
    """Where the bytes of a part lie."""

    extension: str
    url: str
    """Of the file; empty when it is not known where the raw corpus lies."""
    where: str
    """For people: the base and the path below it."""
    offset: int
    num_bytes: int
    sha256: str

    @property
    def kind(self) -> str:
        """`image`, `audio`, `video` or `text` when a browser shows it, else ``."""
        return _kind(self.extension)


@lru_cache(maxsize=256)
def _kind(extension: str) -> str:
    last = extension.rsplit(".", 1)[-1].lower()
    modality = modality_of(extension) or ""
    if modality == "image":
        return "" if last == "svg" else "image"
    return modality if last in TYPES else ""


def parts_of(index: SampleIndex, dataset: Dataset, segment: int, spelled: str) -> list[StoredPart]:
    """Return the parts of a sample, as the index spells them."""
    database = index.database
    parts = []
    for one in spelled.split():
        extension, file, offset, num_bytes, sha256 = one.rsplit(":", 4)
        url, where = _place(index.root, database, dataset, segment, int(file))
        parts.append(StoredPart(extension, url, where, int(offset), int(num_bytes), sha256))
    return parts


def locate(
    index: SampleIndex, dataset: Dataset, segment: int, extension: str, ref: PartRef
) -> StoredPart:
    """Return where the bytes of a reference lie on this machine."""
    url, where = _url(index.root, index.database, dataset, segment, ref.base, ref.path)
    return StoredPart(extension, url, where, ref.offset, ref.num_bytes, ref.sha256)


@lru_cache(maxsize=65536)
def _place(
    root: str, database: SampleDatabase, dataset: Dataset, segment: int, file: int
) -> tuple[str, str]:
    """Return the URL of a file that parts lie in, and its place in words."""
    row = database.read().execute("SELECT base, path FROM file WHERE id=?", (file,)).fetchone()
    return _url(root, database, dataset, segment, row["base"], row["path"])


def _url(
    root: str, database: SampleDatabase, dataset: Dataset, segment: int, base: str, path: str
) -> tuple[str, str]:
    found = _base_url(root, database, dataset, segment, base)
    return storage.join(found, path) if found else "", f"{base}:{path}"


def _base_url(
    root: str, database: SampleDatabase, dataset: Dataset, segment: int, base: str
) -> str | None:
    if base == "shard":
        # a version holds the shards of earlier increments under the same names
        return storage.join(root, "ds", dataset.name, dataset.version)
    url = _known_base(database, segment, base)
    if url is None or "://" in url or url.startswith("/"):
        return url
    return storage.join(root, url)


@lru_cache(maxsize=4096)
def _known_base(database: SampleDatabase, segment: int, base: str) -> str | None:
    row = (
        database.read()
        .execute("SELECT url FROM base WHERE segment=? AND name=?", (segment, base))
        .fetchone()
    )
    return None if row is None else str(row["url"])


class Media:
    """Reads, checks and serves parts; its caches of small pictures and of checks are bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thumbnails: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._num_cached_bytes = 0
        self._verified: OrderedDict[tuple[str, int, str], None] = OrderedDict()

    def serve(self, request: Request, part: StoredPart, name: str) -> Response:
        """Answer with a part, or the range of it that was asked for."""
        headers = _headers(part, name)
        if _has(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
        if part.num_bytes <= _MAX_WHOLE_BYTES:
            data = self.read(part)
        else:
            self._verify(part)
            data = None
        bounds = _range(request, part.num_bytes, headers["etag"])
        if bounds is None:
            if data is not None:
                return Response(data, headers=headers)
            headers["content-length"] = str(part.num_bytes)
            return StreamingResponse(_chunks(part, 0, part.num_bytes), headers=headers)
        first, last = bounds
        if first > last or first >= part.num_bytes:
            headers["content-range"] = f"bytes */{part.num_bytes}"
            return Response(status_code=416, headers=headers)
        headers["content-range"] = f"bytes {first}-{last}/{part.num_bytes}"
        if data is not None:
            return Response(data[first : last + 1], status_code=206, headers=headers)
        headers["content-length"] = str(last - first + 1)
        return StreamingResponse(_chunks(part, first, last + 1), status_code=206, headers=headers)

    def serve_thumbnail(self, request: Request, part: StoredPart, name: str) -> Response:
        """Answer with a picture of at most `THUMBNAIL_SIDE` pixels a side."""
        headers = _headers(part, name)
        headers["etag"] = f'"{part.sha256}-{THUMBNAIL_SIDE}"'
        if _has(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
        data, media_type = self._thumbnail(part)
        headers["content-type"] = media_type
        headers["content-disposition"] = "inline"
        return Response(data, headers=headers)

    def read(self, part: StoredPart) -> bytes:
        """Return the bytes of a part; IntegrityError when they are not what was recorded."""
        data = storage.read(part.url, offset=part.offset, num_bytes=part.num_bytes)
        if len(data) != part.num_bytes or sha256_hex(data) != part.sha256:
            raise _differs(part)
        return data

    def _thumbnail(self, part: StoredPart) -> tuple[bytes, str]:
        with self._lock:
            known = self._thumbnails.get(part.sha256)
            if known is not None:
                self._thumbnails.move_to_end(part.sha256)
                return known
        data = self.read(part)
        media_type = TYPES.get(part.extension.rsplit(".", 1)[-1].lower(), "")
        if not (len(data) <= _SMALL_BYTES and media_type.startswith("image/")):
            try:
                data = encode_jpeg(fit_within(decode_image(data), THUMBNAIL_SIDE), quality=85)
            except SampleError as error:
                raise HTTPException(415, f"no picture: {error}") from error
            media_type = "image/jpeg"
        with self._lock:
            if part.sha256 not in self._thumbnails:
                self._thumbnails[part.sha256] = (data, media_type)
                self._num_cached_bytes += len(data)
            while self._num_cached_bytes > _MAX_CACHED_BYTES:
                _, (dropped, _) = self._thumbnails.popitem(last=False)
                self._num_cached_bytes -= len(dropped)
        return data, media_type

    def _verify(self, part: StoredPart) -> None:
        """Check a part too large to be held, once for as long as its file stays as it is."""
        version = str(os.stat(part.url).st_mtime_ns) if storage.is_local(part.url) else ""
        at = (f"{part.url} {version}", part.offset, part.sha256)
        if at in self._verified:
            return
        digest = hashlib.sha256()
        for chunk in _chunks(part, 0, part.num_bytes):
            digest.update(chunk)
        if digest.hexdigest() != part.sha256:
            raise _differs(part)
        with self._lock:
            self._verified[at] = None
            while len(self._verified) > _MAX_VERIFIED:
                self._verified.popitem(last=False)


def _headers(part: StoredPart, name: str) -> dict[str, str]:
    last = part.extension.rsplit(".", 1)[-1].lower()
    media_type = TYPES.get(last)
    file_name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{name}.{part.extension}")
    return {
        **_HEADERS,
        "content-type": media_type or "application/octet-stream",
        "content-disposition": (
            f'{"inline" if media_type else "attachment"}; filename="{file_name}"'
        ),
        "etag": f'"{part.sha256}"',
        "accept-ranges": "bytes",
    }


def _has(request: Request, etag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return etag in [one.strip().removeprefix("W/") for one in known.split(",")]


def _range(request: Request, num_bytes: int, etag: str) -> tuple[int, int] | None:
    """Return the first and the last byte wanted, or None for all; one range at most."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        return (max(0, num_bytes - int(last)), num_bytes - 1) if int(last) else (num_bytes, 0)
    return int(first), min(int(last), num_bytes - 1) if last else num_bytes - 1


def _chunks(part: StoredPart, first: int, end: int) -> Iterator[bytes]:
    for at in range(first, end, _CHUNK_BYTES):
        num_bytes = min(_CHUNK_BYTES, end - at)
        data = storage.read(part.url, offset=part.offset + at, num_bytes=num_bytes)
        if len(data) != num_bytes:
            raise _differs(part)
        yield data


def _differs(part: StoredPart) -> IntegrityError:
    return IntegrityError(
        f"{part.where} holds other bytes than were recorded for it. Look with: mm verify"
    )
