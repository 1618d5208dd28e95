"""The stamps of Tux Paint (Debian package tuxpaint-stamps-default): picture, caption, speech.

animals/birds/owl.png           the picture, or .svg, or both
animals/birds/owl.txt           line 1 is English, then LANG.utf8=text
animals/birds/owl_desc.ogg      the caption spoken in English
animals/birds/owl_desc_fr.ogg   the caption spoken in French
symbols/math/1_fr.ogg           the same, for some letters and numbers
animals/birds/owl.ogg           the sound of the thing: not used
vehicles/dumper_mirror.png      a drawing of the same thing from the other side
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmcore.errors import ConfigError, SampleError
from mmcore.ingest.layout import (
    Grouping,
    Layout,
    Made,
    RawSample,
    ReadFile,
    SourceFile,
    make_key,
    with_unique_keys,
)
from mmcore.ingest.sidecar import read_text
from mmcore.sample import Dropped, Json, Outcome, Part, Quarantined, Sample

PACKAGE = "tuxpaint-stamps-default"
ENGLISH = "en"
_PICTURES = ("png", "svg")
_SOUNDS = ("ogg", "wav")
_LANGUAGE = re.compile("[a-z]{2,3}([_@][A-Za-z]+)?")
_VARIANTS = ("_mirror_flip", "_mirror", "_flip")


@dataclass(frozen=True, kw_only=True)
class StampsLayout(Layout):
    """One sample per stamp and language that has both a caption and speech.

    A stamp with none gives one sample with its English caption and no sound, so that it is counted.
    """

    languages: tuple[str, ...]
    """As the corpus spells them: `en`, `fr`, `pt_BR`."""
    licence: str = "GPL-2.0-only"
    with_english: bool = False
    """Put the English caption before that of the spoken language: `A rocket. / Une fusee.`"""

    def __post_init__(self) -> None:
        folded = [language.lower() for language in self.languages]
        if not folded or len(set(folded)) != len(folded):
            raise ConfigError(
                f"languages: {list(self.languages)} must name one language or more, each once. "
                "For example: [en, fr, es]."
            )

    def group(self, files: Sequence[SourceFile]) -> Grouping:
        by_path = {file.path: file for file in sorted(files, key=lambda file: file.path)}
        stamps = sorted({_stem(path) for path in by_path if _extension(path) in _PICTURES})
        known = frozenset(stamps)
        claimed: set[str] = set()
        samples = []
        for stamp in stamps:
            if _base_of(stamp, known) is None:
                roles = self._roles(stamp, by_path, known)
                claimed.update(file.path for file in roles.values())
                samples.append(RawSample(make_key(stamp), stamp, roles))
        unclaimed = [
            (path, self._why_unclaimed(path, by_path, known))
            for path in by_path
            if path not in claimed
        ]
        return Grouping(with_unique_keys(samples), sorted(unclaimed))

    def make(self, raw: RawSample, read_file: ReadFile) -> Made:
        picture = next(ext for ext in _PICTURES if ext in raw.files)
        parts = {picture: raw.files[picture].part()}
        meta = self._meta(raw, picture)
        try:
            if raw.problem is not None:
                raise SampleError(*raw.problem)
            captions = self._captions(raw, read_file)
        except SampleError as error:
            key = raw.key if raw.problem else make_key(f"{raw.original_key}/{ENGLISH}")
            broken = Sample(key=key, parts=parts, meta={**meta, "language": ENGLISH})
            return Made([Quarantined(broken, error.reason, error.detail)])
        english = captions[ENGLISH]
        meta |= {
            "caption_en": english,
            "caption_group": " ".join(english.casefold().split()),
        }
        spoken = [language for language in self.languages if _speech_role(raw, language)]
        both = [language for language in spoken if captions.get(language)]
        outcomes: list[Outcome] = []
        for language in both or [ENGLISH]:
            role = _speech_role(raw, language) if language in both else None
            caption = captions[language]
            if self.with_english and language != ENGLISH:
                caption = f"{english} / {caption}"
            outcomes.append(self._sample(raw, picture, language, caption, role, meta))
        first = outcomes[0]
        assert isinstance(first, Sample), "a stamp gives samples only"
        outcomes.extend(_mirrored(raw, meta, twin=first.key))
        useless = [
            (raw.files[role].path, "speech_without_caption")
            for language in spoken
            if language not in both and (role := _speech_role(raw, language))
        ]
        return Made(outcomes, useless)

    def _roles(
        self, stamp: str, by_path: Mapping[str, SourceFile], known: frozenset[str]
    ) -> dict[str, SourceFile]:
        """Return the files of a stamp: `png`, `txt`, `fr.ogg`, `_mirror.png`."""
        roles = {}
        for extension in _PICTURES:
            if f"{stamp}.{extension}" in by_path:
                roles[extension] = by_path[f"{stamp}.{extension}"]
                break
        if f"{stamp}.txt" in by_path:
            roles["txt"] = by_path[f"{stamp}.txt"]
        for language in self.languages:
            path = next((p for p in _speech_paths(stamp, language, known) if p in by_path), None)
            if path is not None:
                roles[f"{language}.{_extension(path)}"] = by_path[path]
        for variant in _VARIANTS:
            for extension in _PICTURES:
                if f"{stamp}{variant}.{extension}" in by_path:
                    roles[f"{variant}.{extension}"] = by_path[f"{stamp}{variant}.{extension}"]
                    break
        return roles

    def _captions(self, raw: RawSample, read_file: ReadFile) -> dict[str, str]:
        """Return the captions by language; the English one is always there."""
        if "txt" not in raw.files:
            raise SampleError("caption_missing", f"there is no {raw.original_key}.txt")
        captions = parse_captions(read_text(raw.files["txt"], read_file))
        if not captions.get(ENGLISH):
            raise SampleError("caption_missing", f"line 1 of {raw.files['txt'].path} is empty")
        return captions

    def _meta(self, raw: RawSample, picture: str) -> dict[str, Json]:
        category = raw.original_key.partition("/")[0]
        return {
            "source": f"{PACKAGE}/{raw.files[picture].path}",
            "licence": self.licence,
            "original_key": raw.original_key,
            "category": category,
            "label": category,
        }

    def _sample(
        self,
        raw: RawSample,
        picture: str,
        language: str,
        caption: str,
        speech: str | None,
        meta: Mapping[str, Json],
    ) -> Sample:
        originals = {picture: raw.files[picture], "txt": raw.files["txt"]}
        if speech is not None:
            originals[speech.rpartition(".")[2]] = raw.files[speech]
        parts = {ext: file.part() for ext, file in originals.items()}
        parts["txt"] = Part(data=caption.encode())
        hashes: dict[str, Json] = {ext: file.sha256 for ext, file in sorted(originals.items())}
        key = make_key(f"{raw.original_key}/{language}")
        return Sample(
            key=key,
            parts=parts,
            meta={**meta, "language": language, "original_sha256": hashes},
        )

    def _why_unclaimed(
        self, path: str, by_path: Mapping[str, SourceFile], known: frozenset[str]
    ) -> str:
        stem, extension = _stem(path), _extension(path)
        if extension == "dat":
            return "drawing_hints"
        if extension in _PICTURES:
            return "png_preferred"
        if extension not in (*_SOUNDS, "txt"):
            return "unknown_extension"
        owner, is_speech = _owner(stem, known)
        if owner is None:
            return "orphan"
        if _base_of(owner, known) is not None:
            return "of_a_mirror_variant"
        if not is_speech:
            return "sound_of_the_thing"
        # the digits are spoken twice in some languages: 1_desc_fr.ogg and 1_fr.ogg
        return "other_speech_preferred" if self._declares(stem, owner) else "language_not_declared"

    def _declares(self, stem: str, owner: str) -> bool:
        language = stem.removeprefix(owner).removeprefix("_desc").removeprefix("_") or ENGLISH
        return language in self.languages


def parse_captions(text: str) -> dict[str, str]:
    r"""Return captions by language: line 1 is English, then LANG.utf8=text; the first one counts.

    >>> parse_captions("An owl.\nfr.utf8=Un hibou.\n")
    {'en': 'An owl.', 'fr': 'Un hibou.'}
    """
    lines = text.split("\n")
    captions = {ENGLISH: lines[0].strip()}
    for line in lines[1:]:
        language, found, caption = line.partition(".utf8=")
        if found and caption.strip():
            captions.setdefault(language.strip(), caption.strip())
    return captions


def _mirrored(raw: RawSample, meta: Mapping[str, Json], *, twin: str) -> Iterator[Dropped]:
    for role in sorted(raw.files):
        if role.startswith(_VARIANTS):
            variant, _, extension = role.rpartition(".")
            file = raw.files[role]
            original_key = raw.original_key + variant
            told: dict[str, Json] = {
                **meta,
                "source": f"{PACKAGE}/{file.path}",
                "original_key": original_key,
                "language": ENGLISH,
                "original_sha256": {extension: file.sha256},
            }
            sample = Sample(
                key=make_key(f"{original_key}/{ENGLISH}"), parts={extension: file.part()}, meta=told
            )
            detail = f"the other side of {raw.original_key}"
            yield Dropped(sample, "mirror_variant", detail, twin=twin)


def _speech_paths(stamp: str, language: str, known: frozenset[str]) -> Iterator[str]:
    """Yield where the speech of a stamp may lie, the best first."""
    ends = ["_desc"] if language == ENGLISH else [f"_desc_{language}", f"_{language}"]
    for end in ends:
        if stamp + end not in known:
            yield from (f"{stamp}{end}.{extension}" for extension in _SOUNDS)


def _speech_role(raw: RawSample, language: str) -> str | None:
    return next((f"{language}.{e}" for e in _SOUNDS if f"{language}.{e}" in raw.files), None)


def _owner(stem: str, known: frozenset[str]) -> tuple[str | None, bool]:
    """Return the stamp that a file belongs to by its name, and whether it is speech."""
    if stem in known:
        return stem, False
    spoken, found, end = stem.rpartition("_desc")
    if found:
        is_language = not end or _LANGUAGE.fullmatch(end[1:])
        return (spoken, True) if spoken in known and is_language else (None, False)
    folder, slash, name = stem.rpartition("/")
    for cut in (i for i, character in enumerate(name) if character == "_"):
        head = folder + slash + name[:cut]
        if head in known and _LANGUAGE.fullmatch(name[cut + 1 :]):
            return head, True
    return None, False


def _base_of(stamp: str, known: frozenset[str]) -> str | None:
    """Return the stamp of which this one is the other side, or None."""
    bases = (stamp.removesuffix(variant) for variant in _VARIANTS if stamp.endswith(variant))
    return next((base for base in bases if base in known), None)


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _extension(path: str) -> str:
    return path.rpartition(".")[2]
