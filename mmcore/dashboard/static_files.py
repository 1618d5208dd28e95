"""Scripts, styles and icons, read once when the dashboard starts and served from memory.

A name that was not there at the start does not exist: no path from outside reaches a disk.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).with_name("static")
# one request instead of two, after the first paint
BUNDLES = {
    "bundle.js": ("vendor/htmx.min.js", "app.js"),
    "bundle.css": ("app.css", "data.css"),
}
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".LICENSE": "text/plain; charset=utf-8",
}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class StaticFile:
    """A file in memory."""

    data: bytes
    packed: bytes
    media_type: str
    version: str


class StaticFiles:
    """The files below static/, with addresses that change when they do."""

    def __init__(self) -> None:
        found = {
            path.relative_to(STATIC).as_posix(): path.read_bytes()
            for path in sorted(STATIC.rglob("*"))
            if path.suffix in _TYPES
        }
        for name, parts in BUNDLES.items():
            separator = b";\n" if name.endswith(".js") else b"\n"
            found[name] = separator.join(found[part] for part in parts)
        self._files = {name: _file(name, data) for name, data in found.items()}

    def url(self, name: str) -> str:
        """Return the address of a file; templates call this as `static("app.css")`."""
        return f"/static/{name}?v={self._files[name].version}"

    async def serve(self, request: Request) -> Response:
        """Answer GET /static/NAME."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        is_current = request.query_params.get("v") == file.version
        headers = {
            "cache-control": _FOREVER if is_current else "no-cache",
            "vary": "accept-encoding",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.packed, headers=headers, media_type=file.media_type)
        return Response(file.data, headers=headers, media_type=file.media_type)


def _file(name: str, data: bytes) -> StaticFile:
    return StaticFile(
        data=data,
        packed=gzip.compress(data, 9, mtime=0),
        media_type=_TYPES[Path(name).suffix],
        version=hashlib.sha256(data).hexdigest()[:12],
    )
