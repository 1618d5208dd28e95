"""What is told of a sample besides its bytes: by rule from its path, or from its metadata."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmcore.errors import ConfigError, SampleError
from mmcore.ingest.layout import Layout
from mmcore.sample import Json, Part, Sample

TEXT_FIELDS = ("caption_group", "label", "language", "licence", "source")
"""What later steps take for text, whoever wrote it."""
_FIELD = "json:"


@dataclass(frozen=True)
class Described:
    """What is told of a sample."""

    meta: Mapping[str, Json]
    caption: str | None


@dataclass(frozen=True, kw_only=True)
class DescribedLayout(Layout):
    """A layout whose samples are described by their path and by metadata beside them."""

    label_from: str | None = None
    """`folder`: the name of the folder that holds the sample; `folder:0`: of the first folder on
    the way to it, `folder:1`: of the second, `folder:-2`: of the last but one; `path`: all of them.
    `json:FIELD`: that field of the metadata, with dots into objects. None: no label but the one
    that the metadata may bring."""
    caption_from: str | None = None
    """`json:FIELD`: the caption, where there is no text file. Of a list the first one; all of them
    stay in the metadata. None: captions are text files."""
    licence_from: str | None = None
    """`json:FIELD`. None: the field `licence`, or `license`, if there is one."""
    language_from: str | None = None
    """`json:FIELD`. None: the field `language`, if there is one."""
    licence: str = "unknown"
    """Of every sample whose metadata does not name its own."""
    language: str = "und"
    """BCP 47 tag of the captions whose metadata does not name its own; `und` is undetermined."""

    _label_rules: ClassVar[str] = r"folder(:-?\d+)?|path|json:.+"

    def __post_init__(self) -> None:
        if self.label_from is not None and not re.fullmatch(self._label_rules, self.label_from):
            raise ConfigError(
                f"label_from: {self.label_from!r} is not known. Use folder, folder:0, path, "
                "json:FIELD (for example json:category), or leave it out."
            )
        for name in ("caption_from", "licence_from", "language_from"):
            rule = getattr(self, name)
            if rule is not None and not re.fullmatch("json:.+", rule):
                raise ConfigError(
                    f"{name}: {rule!r} is not known. Use json:FIELD, for example json:caption, or "
                    "leave it out."
                )

    def described(
        self, told: Mapping[str, Json], *, where: str, original_key: str, folder: str | None = None
    ) -> Described:
        """Return what the rules make of the metadata; SampleError when they make nothing of it."""
        meta = dict(told)
        if "licence" not in meta and isinstance(meta.get("license"), str):
            meta["licence"] = meta["license"]
        for name, rule in (("licence", self.licence_from), ("language", self.language_from)):
            found = None if rule is None else find_field(told, rule.removeprefix(_FIELD))
            if found is not None:
                meta[name] = found
        meta = as_text(meta, where)
        folders = original_key.rpartition("/")[0] if folder is None else folder
        label = self._label(told, original_key, folders)
        if label is not None:
            meta["label"] = label
        caption, more = self._caption(told, where)
        return Described({**meta, **more}, caption)

    def _label(self, told: Mapping[str, Json], original_key: str, folder: str) -> str | None:
        if self.label_from is None:
            return None
        if self.label_from.startswith(_FIELD):
            name = self.label_from.removeprefix(_FIELD)
            label = find_field(told, name)
            if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
                raise SampleError("label_missing", f"the sidecar says {name}: {label!a:.80}")
            return str(label)
        if not folder:
            raise SampleError("label_missing", f"{original_key} lies in no folder")
        if self.label_from == "path":
            return folder
        folders = folder.split("/")
        index = int(self.label_from.partition(":")[2] or -1)
        if not -len(folders) <= index < len(folders):
            raise SampleError("label_missing", f"{folder} has no folder number {index}")
        return folders[index]

    def _caption(
        self, told: Mapping[str, Json], where: str
    ) -> tuple[str | None, Mapping[str, Json]]:
        if self.caption_from is None:
            return None, {}
        name = self.caption_from.removeprefix(_FIELD)
        found = find_field(told, name)
        captions = found if isinstance(found, list) else [] if found is None else [found]
        texts: list[Json] = [text for text in captions if isinstance(text, str)]
        if len(texts) != len(captions):
            raise SampleError("metadata_unreadable", f"{where}: {name} is not text: {found!a:.80}")
        more: dict[str, Json] = {"captions": texts} if len(texts) > 1 else {}
        return (str(texts[0]) if texts else None), more


def find_field(told: Mapping[str, Json], name: str) -> Json:
    """Return a field by its name, or by its path with dots; None where there is none.

    >>> find_field({"meta": {"title": "Owl"}}, "meta.title")
    'Owl'
    """
    if name in told:
        return told[name]
    value: Json = dict(told)
    for piece in name.split("."):
        value = value.get(piece) if isinstance(value, dict) else None
    return value


def as_text(told: Mapping[str, Json], where: str) -> dict[str, Json]:
    """Return metadata in which numbers became text where text is expected."""
    texts = dict(told)
    for name in TEXT_FIELDS:
        value = told.get(name, "")
        if isinstance(value, int) and not isinstance(value, bool):
            texts[name] = str(value)
        elif not isinstance(value, str):
            detail = f"{where}: {name} is {type(value).__name__}, not text"
            raise SampleError("metadata_unreadable", detail)
    return texts


def with_caption(sample: Sample, caption: str | None) -> Sample:
    """Return a sample with a caption from its metadata, unless it has a text of its own."""
    if caption is None or "txt" in sample.parts:
        return sample
    return Sample(
        key=sample.key,
        parts={**sample.parts, "txt": Part(data=caption.encode())},
        meta=sample.meta,
    )
