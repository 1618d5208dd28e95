"""Rules about what a sample must have: parts by modality, values of its metadata."""

import json
from dataclasses import dataclass

from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError
from mmcore.sample import MODALITIES, Dropped, Outcome, Sample, modality_of


@dataclass(frozen=True, kw_only=True)
class RequireParts(Stage):
    """Drop samples that lack a modality: `image_missing`, `text_missing`, ..."""

    required: tuple[str, ...]
    """Modalities: `image`, `text`, `audio`, `video`. The first that is missing is the reason."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.required if name not in MODALITIES]
        if unknown:
            raise ConfigError(
                f"RequireParts.required names {unknown[0]!r}, which is no modality. "
                f"Use some of {', '.join(MODALITIES)}."
            )

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            for modality in self.required:
                if sample.extension(modality) is None:
                    found = ", ".join(sorted(sample.parts)) or "none"
                    return Dropped(sample, f"{modality}_missing", f"parts: {found}")
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class KeepValues(Stage):
    """Keep samples whose metadata field has one of some values: `<field>_not_wanted` otherwise."""

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

    modalities: tuple[str, ...]
    """`image`, `text`, `audio`, `video`."""

    def build(self) -> Worker:
        def strip(sample: Sample) -> Outcome:
            for extension in sorted(sample.parts):
                if modality_of(extension) not in self.modalities:
                    sample = sample.without_part(extension)
            return sample

        return strip
