"""Plain folders: the files of one folder that have one stem are one sample.

star/000017.jpg  star/000017.txt  star/000017.wav  star/000017.json
star/metadata.csv
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from mmcore.errors import SampleError
from mmcore.ingest.captions import language_tag
from mmcore.ingest.described import DescribedLayout, with_caption
from mmcore.ingest.foldertable import nearest_table, open_table
from mmcore.ingest.layout import (
    Grouping,
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
_TABLE = "/table"  # no extension


@dataclass(frozen=True, kw_only=True)
class FolderLayout(DescribedLayout):
    """Group files by folder and stem; read `.json` sidecars into the metadata."""

    caption_languages: tuple[str, ...] = ()
    """Languages of captions that name theirs: with `fr`, `owl.fr.txt` is the part `fr.txt` of
    `owl`."""
    table: str | None = None
    """The name of a table (`metadata.csv`, `.jsonl`) that tells of the files in its folder and
    below, a row for each: its columns are metadata, like the fields of a sidecar."""
    table_key: str = "file_name"
    """The column that names the file, relative to the table."""
    several: Literal["quarantine", "each"] = "quarantine"
    """Of `owl.jpg` and `owl.png`, which picture is meant? `quarantine`: nobody knows. `each`: they
    are a sample each, sharing what else has their stem."""

    def group(self, files: Sequence[SourceFile]) -> Grouping:
        tables = {
            posixpath.dirname(file.path): file
            for file in files
            if self.table is not None and posixpath.basename(file.path) == self.table
        }
        unclaimed: list[tuple[str, str]] = []
        members: dict[str, list[tuple[str, SourceFile]]] = {}
        for file in sorted(files, key=lambda file: file.path):
            if tables.get(posixpath.dirname(file.path)) == file:
                continue
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
            table = nearest_table(stem, tables)
            for original_key, its_files in self._divided(stem, found):
                raw, left_over = _raw_sample(original_key, its_files)
                if table is not None:
                    raw = replace(raw, files={**raw.files, _TABLE: table})
                samples.append(raw)
                unclaimed.extend(left_over)
        used = {raw.files[_TABLE].path for raw in samples if _TABLE in raw.files}
        unclaimed.extend(
            (file.path, "sidecar_alone") for file in tables.values() if file.path not in used
        )
        return Grouping(with_unique_keys(samples), sorted(unclaimed))

    def around(self, paths: pa.ChunkedArray) -> pa.ChunkedArray | None:
        if self.table is not None:
            return None  # which tells of all that lies below its folder
        # a stem may have dots, and keys do not tell upper case from lower
        return pc.replace_substring_regex(pc.ascii_lower(paths), r"(?s)\.[^/]*$", "")

    def identity(self) -> dict[str, Json]:
        identity = super().identity()
        if self.caption_languages:
            return {**identity, "caption_languages": list(self.caption_languages)}
        del identity["caption_languages"]
        return identity

    def _with_language(self, stem: str, extension: str) -> tuple[str, str]:
        """Move the language of a caption from the stem to the extension."""
        rest, _, tag = stem.rpartition(".")
        if not rest or modality_of(extension) != "text" or tag not in self.caption_languages:
            return stem, extension
        return rest, f"{tag}.{extension}"

    def _divided(
        self, stem: str, found: Sequence[tuple[str, SourceFile]]
    ) -> Iterator[tuple[str, Sequence[tuple[str, SourceFile]]]]:
        """Yield the samples that files of one stem are: one, or one per file of a modality."""
        ambiguous = ambiguous_parts([extension for extension, _ in found])
        is_one_kind = len({modality_of(extension) for extension in ambiguous}) == 1
        if self.several == "quarantine" or not is_one_kind or len(set(ambiguous)) < len(ambiguous):
            yield stem, found
            return
        shared = [one for one in found if one[0] not in ambiguous]
        for extension, file in found:
            if extension in ambiguous:
                yield f"{stem}.{extension}", [(extension, file), *shared]

    def opens(self, raw: RawSample) -> bool:
        return raw.problem is None and (_SIDECAR in raw.files or _TABLE in raw.files)

    def refused(self, raw: RawSample, reason: str, detail: str, num_found: int) -> Quarantined:
        made = self.make(replace(raw, problem=(reason, detail)), _none_is_read)
        (outcome,) = made.outcomes
        assert isinstance(outcome, Quarantined), "of a problem that the names show"
        return outcome

    def make(self, raw: RawSample, read_file: ReadFile) -> Made:
        table = raw.files.get(_TABLE)
        files = {ext: file for ext, file in raw.files.items() if ext != _TABLE}
        parts = {ext: file.part() for ext, file in files.items() if ext != _SIDECAR}
        first = files[min(parts)]
        known: dict[str, Json] = {
            "source": first.path,
            "licence": self.licence,
            "language": self.language,
        }
        fixed: dict[str, Json] = {
            "original_key": raw.original_key,
            "original_sha256": {ext: file.sha256 for ext, file in sorted(files.items())},
        }
        sample = Sample(key=raw.key, parts=parts, meta={**known, **fixed})
        if raw.problem is not None:
            return Made([Quarantined(sample, *raw.problem)])
        unclaimed: Sequence[tuple[str, str]] = ()
        try:
            sidecar = files.get(_SIDECAR)
            told = {} if sidecar is None else read_metadata(sidecar, read_file)
            if table is not None:
                opened = open_table(table, read_file, key=self.table_key)
                unclaimed = opened.problems
                told = {**opened.row(table, [file.path for file in files.values()]), **told}
            where = first.path if sidecar is None else sidecar.path
            described = self.described(told, where=where, original_key=raw.original_key)
        except SampleError as error:
            return Made([Quarantined(sample, error.reason, error.detail)], unclaimed)
        sample = Sample(key=raw.key, parts=parts, meta={**known, **described.meta, **fixed})
        return Made([with_caption(sample, described.caption)], unclaimed)


def _none_is_read(file: SourceFile) -> bytes:
    raise AssertionError(f"{file.path} is read, though names say it all")


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
