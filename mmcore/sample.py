"""A training example: a key, parts by extension, metadata, scores; and what may become of it.

A part is bytes in memory, or a reference to bytes that lie in the raw corpus or in the artifact
of an earlier step. References name their base (`source`, or a step), never a path of this machine,
so that the same data has the same description under any root.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_EXTENSIONS = {
    "image": "jpg jpeg png webp gif bmp tif tiff ppm svg "
    "apng avif blp bw cur dcx dds dib eps exif fit fits fli flc ftex gbr heic heif icns ico im "
    "j2c j2k jfif jp2 jpc jpe jpf jpx mic mpo msp palm pbm pcd pcx pfm pgm pnm psd pxr qoi ras rgb "
    "rgba sgi tga xbm xpm",
    "text": "txt",
    "audio": "wav flac ogg mp3 opus m4a "
    "aac ac3 aif aifc aiff amr ape au caf dff dsf eac3 m4b mka mp2 mpc oga ofr ofs rf64 snd spx "
    "tak tta voc w64 wma wv",
    "video": "mp4 mov avi mkv webm 3g2 3gp flv m2ts m4v mpeg mpg mts mxf ogv vob wmv",
}
MODALITIES: Mapping[str, frozenset[str]] = {
    name: frozenset(extensions.split()) for name, extensions in _EXTENSIONS.items()
}
"""What a file means to be, by its name. Whether it can be read is for a decoder to say: a file that
no decoder of ours knows is a sample with that reason, and not one that nobody has seen."""


@lru_cache(1024)  # asked for every part of every sample, many times over
def modality_of(extension: str) -> str | None:
    """Return the modality of a part by the last piece of its extension, or None.

    >>> modality_of("speech.ogg")
    'audio'
    """
    last = extension.rsplit(".", 1)[-1].lower()
    return next((name for name, known in MODALITIES.items() if last in known), None)


@dataclass(frozen=True, slots=True)
class PartRef:
    """Where the bytes of a part lie, and what they must hash to."""

    base: str
    """`source`, or the name of the step whose artifact holds the file."""
    path: str
    """Relative to the base."""
    offset: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of one modality of a sample: in memory, or where they lie, or both."""

    ref: PartRef | None = None
    """None for a part that a stage has just made."""
    data: bytes | None = None
    """None until the runner has loaded it; see `Stage.reads`."""
    made: "Made | None" = None
    """What a step to come makes of it, made already; see `core/ahead.py`."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage makes of a part, for the step that the stage belongs to."""

    by: str
    """What stands for the stage, its code and its fields."""
    of: str
    """The extension of the part that it was made of."""
    extension: str
    part: Part | None
    """None where that part stays as it is."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One training example. Stages return changed copies; they never change one in place."""

    key: str
    """Unique in the dataset, ASCII, without dots: the stem of its members in a shard."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """By extension: `png`, `txt`, `ogg`, or with a word before it: `effect.ogg`."""
    meta: Mapping[str, Json] = field(default_factory=dict)
    """Source, licence, label, language, split ...: what is known besides the bytes."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What stages measured, kept so that thresholds can move without measuring again."""
    scratch: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)
    """What the stages of one step share, by (extension, what), for example a decoded picture.
    Never stored. What is under no extension is JSON, and reaches stages in other processes too."""

    def extension(self, modality: str) -> str | None:
        """Return the extension of the first part (in sorted order) of a modality, or None."""
        return next((ext for ext in sorted(self.parts) if modality_of(ext) == modality), None)

    def data(self, extension: str) -> bytes:
        """Return the bytes of a part that the runner has loaded or a stage has made."""
        data = self.parts[extension].data
        assert data is not None, f"{self.key}.{extension} was not loaded: name it in Stage.reads"
        return data

    # made anew, not by dataclasses.replace, which takes four times as long: every stage does this

    def with_parts(self, parts: Mapping[str, Part]) -> "Sample":
        """Return a copy with other parts; what stages share stays."""
        return Sample(self.key, parts, self.meta, self.scores, self.scratch)

    def with_part(self, extension: str, data: bytes) -> "Sample":
        """Return a copy with a new or replaced part."""
        scratch = {at: value for at, value in self.scratch.items() if at[0] != extension}
        parts = {**self.parts, extension: Part(data=data)}
        return Sample(self.key, parts, self.meta, self.scores, scratch)

    def without_part(self, extension: str) -> "Sample":
        """Return a copy without a part."""
        parts = {ext: part for ext, part in self.parts.items() if ext != extension}
        scratch = {at: value for at, value in self.scratch.items() if at[0] != extension}
        return Sample(self.key, parts, self.meta, self.scores, scratch)

    def with_meta(self, **meta: Json) -> "Sample":
        """Return a copy with more metadata."""
        return Sample(self.key, self.parts, {**self.meta, **meta}, self.scores, self.scratch)

    def with_scores(self, **scores: float) -> "Sample":
        """Return a copy with more scores."""
        scores = {**self.scores, **scores}
        return Sample(self.key, self.parts, self.meta, scores, self.scratch)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A sound sample that a rule does not want."""

    sample: Sample
    reason: str
    """Short, snake_case, stable: it is counted and shown. `image_too_small`."""
    detail: str = ""
    """For a person: the value found and the limit. `24 px < 32 px`."""
    twin: str = ""
    """The key of the sample that outlived this one, where the rule is about duplicates."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A broken sample, kept aside with its reason."""

    sample: Sample
    reason: str
    detail: str = ""


Outcome = Sample | Dropped | Quarantined


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()
