"""Plain folders: the files of one folder that have one stem are one sample.

star/000017.jpg  star/000017.txt  star/000017.wav  star/000017.json
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmcore.errors import ConfigError, SampleError
from mmcore.ingest.captions import language_tag
from mmcore.ingest.layout import (
    Grouping,
    Layout,
    Made,
    RawSample,
    ReadFile,
    SourceFile,
    ambiguous_parts,
    make_key,
    with_unique_keys,
)
from mmcore.ingest.sidecar import read_metadata
from mmcore.sample import Json, Quarantined, Sample, modality_of

_SIDECAR = "json"
_TEXT_FIELDS = ("caption_group", "label", "language", "licence", "source")
"""What later steps take for text, whoever wrote it."""


@dataclass(frozen=True, kw_only=True)
class FolderLayout(Layout):
    """Group files by folder and stem; read `.json` sidecars into the metadata."""

    label_from: str | None = None
    """`folder`: the name of the folder that holds the sample. `json:FIELD`: that field of the
    sidecar. None: no label but the one that a sidecar may bring."""
    licence: str = "unknown"
    """Of every sample whose sidecar does not name its own."""
    language: str = "und"
    """BCP 47 tag of the captions whose sidecar does not name its own; `und` is undetermined."""
    caption_languages: tuple[str, ...] = ()
    """Languages of captions that name theirs: with `fr`, `owl.fr.txt` is the part `fr.txt` of
    `owl`."""

    def __post_init__(self) -> None:
        if self.label_from not in (None, "folder") and not re.fullmatch(
            "json:.+", self.label_from or ""
        ):
            raise ConfigError(
                f"label_from: {self.label_from!r} is not known. "
                "Use folder, json:FIELD (for example json:category), or leave it out."
            )

    def group(self, files: Sequence[SourceFile]) -> Grouping:
        unclaimed: list[tuple[str, str]] = []
        members: dict[str, list[tuple[str, SourceFile]]] = {}
        for file in sorted(files, key=lambda file: file.path):
            stem, extension, reason = _split(file.path)
            stem, extension = self._with_language(stem, extension)
            if reason:
                unclaimed.append((file.path, reason))
            else:
                members.setdefault(stem, []).append((extension, file))
        samples = []
        for stem, found in members.items():
            if all(extension == _SIDECAR for extension, _ in found):
                unclaimed.extend((file.path, "sidecar_alone") for _, file in found)
                continue
            raw, left_over = _raw_sample(stem, found)
            samples.append(raw)
            unclaimed.extend(left_over)
        return Grouping(with_unique_keys(samples), sorted(unclaimed))

    def _with_language(self, stem: str, extension: str) -> tuple[str, str]:
        """Move the language of a caption from the stem to the extension."""
        rest, _, tag = stem.rpartition(".")
        if not rest or modality_of(extension) != "text" or tag not in self.caption_languages:
            return stem, extension
        return rest, f"{tag}.{extension}"

    def make(self, raw: RawSample, read_file: ReadFile) -> Made:
        parts = {ext: file.part() for ext, file in raw.files.items() if ext != _SIDECAR}
        first = raw.files[min(parts)]
        known: dict[str, Json] = {
            "source": first.path,
            "licence": self.licence,
            "language": self.language,
        }
        fixed: dict[str, Json] = {
            "original_key": raw.original_key,
            "original_sha256": {ext: file.sha256 for ext, file in sorted(raw.files.items())},
        }
        sample = Sample(key=raw.key, parts=parts, meta={**known, **fixed})
        if raw.problem is not None:
            return Made([Quarantined(sample, *raw.problem)])
        try:
            sidecar = raw.files.get(_SIDECAR)
            told = {} if sidecar is None else _told(sidecar, read_file)
            label = self._label(raw, told)
        except SampleError as error:
            return Made([Quarantined(sample, error.reason, error.detail)])
        return Made([Sample(key=raw.key, parts=parts, meta={**known, **told, **fixed, **label})])

    def _label(self, raw: RawSample, told: dict[str, Json]) -> dict[str, Json]:
        if self.label_from is None:
            return {}
        if self.label_from == "folder":
            folder = raw.original_key.rpartition("/")[0].rpartition("/")[2]
            if not folder:
                raise SampleError("label_missing", f"{raw.original_key} lies in no folder")
            return {"label": folder}
        name = self.label_from.removeprefix("json:")
        label = told.get(name)
        if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
            raise SampleError("label_missing", f"the sidecar says {name}: {label!a:.80}")
        return {"label": str(label)}


def _told(sidecar: SourceFile, read_file: ReadFile) -> dict[str, Json]:
    told = read_metadata(sidecar, read_file)
    for name in _TEXT_FIELDS:
        value = told.get(name, "")
        if isinstance(value, int) and not isinstance(value, bool):
            told[name] = str(value)
        elif not isinstance(value, str):
            detail = f"{sidecar.path}: {name} is {type(value).__name__}, not text"
            raise SampleError("metadata_unreadable", detail)
    return told


def _split(path: str) -> tuple[str, str, str]:
    """Return (stem with folder, extension in lower case, why it is no part of a sample)."""
    if any(piece.startswith(".") for piece in path.split("/")):
        return "", "", "hidden"
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    extension = extension.lower()
    if not dot:
        return "", "", "no_extension"
    if extension != _SIDECAR and modality_of(extension) is None:
        return "", "", "unknown_extension"
    return folder + slash + stem, extension, ""


def _raw_sample(
    stem: str, found: Sequence[tuple[str, SourceFile]]
) -> tuple[RawSample, list[tuple[str, str]]]:
    files: dict[str, SourceFile] = {}
    left_over = []
    for extension, file in found:
        if extension in files:
            left_over.append((file.path, "part_ambiguous"))
        else:
            files[extension] = file
    problem = None
    ambiguous = ambiguous_parts(sorted(name for name in files if not language_tag(name)))
    if left_over or ambiguous:
        names = sorted(file.path.rpartition("/")[2] for _, file in found)
        problem = ("part_ambiguous", f"several files for one part: {', '.join(names)}")
    return RawSample(make_key(stem), stem, files, problem=problem), left_over
