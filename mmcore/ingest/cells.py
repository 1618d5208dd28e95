"""What one cell of a table means: bytes, a file beside the table, a URL, a caption."""

import base64
import binascii
import math
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmcore.errors import SampleError
from mmcore.ingest.layout import Arrived, SourceFile
from mmcore.media.kind import extension_of
from mmcore.sample import Json, Part, modality_of, sha256_hex

ANY = "media"
"""A column whose bytes say what they are."""
_URL = re.compile("https?://", re.IGNORECASE)
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:")
_DATA_URI = re.compile(r"data:[^,;]*(;[^,;]*)*?;base64,", re.IGNORECASE)
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a column of media, before its file is looked up."""

    data: bytes | None = None
    paths: tuple[str, ...] = ()
    """Where the file may lie in the source, the likeliest first."""
    url: str = ""
    arrived: Arrived | None = None
    problem: tuple[str, str] | None = None

    def part(self, modality: str, files: Mapping[str, SourceFile]) -> tuple[str, Part, str] | None:
        """Return (extension, part, SHA-256), or None for an empty cell; SampleError for what is no
        part of this modality.
        """
        if self.problem is not None:
            raise SampleError(*self.problem)
        if self.data is not None:
            extension = _as(modality, extension_of(self.data), self.data[:16])
            return extension, Part(data=self.data), sha256_hex(self.data)
        if self.url:
            return self._fetched(modality)
        if not self.paths:
            return None
        file = next((files[path] for path in self.paths if path in files), None)
        if file is None:
            raise SampleError("part_missing", f"{self.paths[0]} is not in the source")
        extension = file.path.rpartition(".")[2].lower()
        if modality_of(extension) != modality and not (modality == ANY and modality_of(extension)):
            raise SampleError("unknown_extension", f"{file.path} is no {modality} by its name")
        return extension, file.part(), file.sha256

    def _fetched(self, modality: str) -> tuple[str, Part, str]:
        arrived = self.arrived
        if arrived is None:
            raise SampleError("url_not_fetched", f"{self.url:.200}: the recipe says no `fetch:`")
        if arrived.ref is None:
            raise SampleError(arrived.reason, arrived.detail)
        extension = _as(modality, arrived.extension, b"")
        return extension, Part(ref=arrived.ref), arrived.ref.sha256


def read_cell(value: Any, table: str, arrived: Mapping[str, Arrived]) -> Cell:
    """Return what a cell means, whatever is in it."""
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else None
    if isinstance(value, dict) and value.keys() & {"bytes", "path"}:
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if value is None or value == "":
        return Cell()
    if isinstance(value, bytes):
        return Cell(data=value)
    if not isinstance(value, str):
        return Cell(problem=("value_not_understood", f"neither bytes nor a path: {value!a:.80}"))
    if _DATA_URI.match(value):
        return _inline(value)
    if _URL.match(value):
        return Cell(url=value, arrived=arrived.get(value))
    return _beside(value, table)


def url_of(value: Any) -> str | None:
    """Return the URL that a cell holds, or None."""
    return read_cell(value, "", {}).url or None


def caption_texts(value: Any, column: str) -> list[str]:
    """Return the captions in a cell, however deep in lists; SampleError for anything but text."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for inner in value for text in caption_texts(inner, column)]
    if isinstance(value, dict) and isinstance(value.get("raw"), str):
        return [str(value["raw"])]  # the sentences of COCO and Flickr
    raise SampleError("value_not_understood", f"{column} is not text: {value!a:.80}")


def plain_values(values: Mapping[str, Any], *, without: set[str]) -> dict[str, Json]:
    """Return the columns that are short text or numbers: what else there is to know of a row."""
    taken = {name.split(".")[0] for name in without} | without
    return {
        name: value
        for name, value in values.items()
        if name not in taken
        and (
            isinstance(value, bool | int)
            or (isinstance(value, str) and len(value) <= _MAX_TEXT)
            or (isinstance(value, float) and math.isfinite(value))
        )
    }


def _as(modality: str, extension: str | None, beginning: bytes) -> str:
    """Return the extension as one of a modality, or raise."""
    if modality == "audio" and extension in ("mp4", "mov"):
        return "m4a"  # the container is the same
    found = None if extension is None else modality_of(extension)
    if extension is None or (modality not in (ANY, found)):
        said = f"it begins with {beginning!r}" if extension is None else f"it is {extension}"
        wanted = "picture, sound or film" if modality == ANY else modality
        raise SampleError("content_unknown", f"no {wanted}: {said}")
    return extension


def _inline(value: str) -> Cell:
    try:
        return Cell(data=base64.b64decode(value.partition(",")[2], validate=True))
    except (binascii.Error, ValueError) as error:
        return Cell(problem=("value_not_understood", f"a data: URI that is no base64: {error}"))


def _beside(value: str, table: str) -> Cell:
    """Return a cell that names a file; one outside of the source is refused."""
    if _SCHEME.match(value):
        return Cell(problem=("url_refused", f"{value:.200}: only http:// and https:// are read"))
    if value.startswith(("/", "\\")) or "\0" in value:
        return Cell(problem=("path_outside", f"{value:.200} is not relative to the table"))
    folder = posixpath.dirname(table)
    candidates = [posixpath.normpath(posixpath.join(folder, value)), posixpath.normpath(value)]
    inside = tuple(one for one in dict.fromkeys(candidates) if not one.startswith(".."))
    if not inside:
        return Cell(problem=("path_outside", f"{value:.200} leads out of the source"))
    return Cell(paths=inside)
