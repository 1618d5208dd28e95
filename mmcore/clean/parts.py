"""Rules about what a sample must have: parts by modality, values of its metadata."""

import json
import re
from dataclasses import dataclass, replace
from typing import Literal

from mmcore.core.measured import declare_optional, without_scores
from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError
from mmcore.sample import MODALITIES, Dropped, Outcome, Sample, modality_of


@dataclass(frozen=True, kw_only=True)
class RequireParts(Stage):
    """Drop samples that lack a modality: `image_missing`, `text_missing`, ..."""

    rewrites = ()
    required: tuple[str, ...] = ()
    """Modalities: `image`, `text`, `audio`, `video`. The first that is missing is the reason."""
    optional: tuple[str, ...] = ()
    """Modalities that a sample may do without. Where a stage behind this one finds a part of them
    broken, or refuses it, the sample stays, without the part: the metadata `dropped_parts` names it
    with the reason, and the score num_dropped_parts counts them."""

    def __post_init__(self) -> None:
        for field in ("required", "optional"):
            unknown = [name for name in getattr(self, field) if name not in MODALITIES]
            if unknown:
                raise ConfigError(
                    f"RequireParts.{field} names {unknown[0]!r}, which is no modality. "
                    f"Use some of {', '.join(MODALITIES)}."
                )
        both = sorted(set(self.required) & set(self.optional))
        if both:
            raise ConfigError(
                f"RequireParts: {both[0]!r} is required and optional. Name it in one of them."
            )

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            if self.optional:
                declare_optional(sample, self.optional)
            for modality in self.required:
                if sample.extension(modality) is None:
                    found = ", ".join(sorted(sample.parts)) or "none"
                    return Dropped(sample, f"{modality}_missing", f"parts: {found}")
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class KeepValues(Stage):
    """Keep samples whose metadata field has one of some values: `<field>_not_wanted` otherwise."""

    rewrites = ()
    field: str
    values: tuple[str, ...]
    """Numbers and truth values are compared as they are written in JSON: `3`, `true`."""

    def build(self) -> Worker:
        reason = f"{self.field}_not_wanted"
        wanted = frozenset(self.values)

        def check(sample: Sample) -> Outcome:
            if self.field not in sample.meta:
                return Dropped(sample, reason, f"has no {self.field}")
            value = sample.meta[self.field]
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            if text not in wanted:
                return Dropped(sample, reason, f"{text} is none of {', '.join(self.values)}")
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class KeepParts(Stage):
    """Leave out the parts of other modalities, so that all samples have the same ones."""

    rewrites = ()
    modalities: tuple[str, ...]
    """`image`, `text`, `audio`, `video`."""

    def build(self) -> Worker:
        def strip(sample: Sample) -> Outcome:
            for extension in sorted(sample.parts):
                if modality_of(extension) not in self.modalities:
                    sample = sample.without_part(extension)
            return sample

        return strip


@dataclass(frozen=True, kw_only=True)
class KeepCaptions(Stage):
    """Choose among captions in several languages, `en.txt` and `fr.txt`.

    Drops `language_missing` where none is wanted; samples without a caption pass through.
    The word before the dot is a BCP 47 tag; a plain `txt` has the language that the metadata
    declares. Of a longer tag (`en-GB`) the first piece is compared.
    """

    rewrites = ("text",)
    languages: tuple[str, ...]
    """Wanted, the dearest first."""
    several: Literal["first", "all"] = "first"
    """`first` keeps the dearest alone, as `txt`, with its language in the metadata; `all` keeps
    the wanted ones as they are, in one sample."""
    meta_field: str = "language"

    def build(self) -> Worker:
        order = {_primary(tag): i for i, tag in reversed(list(enumerate(self.languages)))}

        def choose(sample: Sample) -> Outcome:
            tags = {
                extension: _tag(extension) or str(sample.meta.get(self.meta_field) or "und")
                for extension in sorted(sample.parts)
                if modality_of(extension) == "text"
            }
            if not tags:
                return sample
            wanted = [extension for extension, tag in tags.items() if _primary(tag) in order]
            if not wanted:
                listed = f"{', '.join(tags.values())}: none of {', '.join(self.languages)}"
                return Dropped(sample, "language_missing", listed)
            if self.several == "first":
                # of two of a language, the first in sorted order
                wanted = [min(wanted, key=lambda extension: order[_primary(tags[extension])])]
            left_out = [extension for extension in tags if extension not in wanted]
            for extension in left_out:
                sample = sample.without_part(extension)
            if self.several == "first":
                (extension,) = wanted
                part = sample.parts[extension]
                sample = sample.without_part(extension)
                sample = replace(sample, parts={**sample.parts, "txt": part})
                sample = sample.with_meta(**{self.meta_field: tags[extension]})
            return without_scores(sample, "text") if left_out else sample

        return choose


def _tag(extension: str) -> str:
    """Return what stands before the last piece of an extension: `pt-BR` of `pt-BR.txt`."""
    return extension.rpartition(".")[0].rpartition(".")[2]


def _primary(tag: str) -> str:
    return re.split(r"[-_@]", tag, maxsplit=1)[0].lower()
