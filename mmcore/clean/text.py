"""Stages that read captions. Samples without one pass through; see `RequireParts`."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import ftfy
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from mmcore.core.stage import Stage, Worker
from mmcore.media.text import text_of
from mmcore.sample import Dropped, Outcome, Sample

# Invisible, yet what they join or part is read differently in Persian, in Hindi and in emoji
_JOINERS = "\u200b\u200c\u200d"
# Signs that enclose the digits after them (Arabic year sign and the like): visible
_VISIBLE_FORMAT = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")

# A zero width space parts words in Thai, Lao, Burmese and Khmer; anywhere else it is debris
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_DEBRIS = re.compile(f"(?<![{_SPACELESS}])\u200b|\u200b(?![{_SPACELESS}])")
# Quotes and wide letters are what the writer chose; control characters are seen to below, more
# thoroughly
_FTFY = ftfy.TextFixerConfig(
    uncurl_quotes=False,
    fix_character_width=False,
    remove_control_chars=False,
    normalization="NFC",
    explain=False,
)


@dataclass(frozen=True, kw_only=True)
class RepairCaption(Stage):
    """Repair a caption and write it back: one line of visible text in NFC.

    Mojibake and HTML entities are undone (ftfy); control, bidirectional, tag and other invisible
    characters go, joiners stay; runs of white space become one space. Drops `caption_empty` and
    `caption_too_long`; stores the score caption_chars.
    """

    reads = ("text",)
    max_chars: int = 2_000
    """Of the repaired caption. Longer ones are pages, not captions: cutting would keep a part
    that may say nothing of the picture."""

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            extension = sample.extension("text")
            if extension is None:
                return sample
            data = sample.data(extension)
            caption = repair(text_of(sample))
            if caption.encode() != data:
                sample = sample.with_part(extension, caption.encode())
            sample = sample.with_scores(caption_chars=float(len(caption)))
            if not any(_is_seen(char) for char in caption):
                return Dropped(sample, "caption_empty", f"{len(data)} bytes, nothing to read")
            if len(caption) > self.max_chars:
                detail = f"{len(caption)} characters > {self.max_chars}"
                return Dropped(sample, "caption_too_long", detail)
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class CaptionLanguage(Stage):
    """Guess the language of a caption; drop `language_not_wanted` where languages are given.

    Stores the score language_confidence (0 to 1) and the metadata detected_language. A guess from
    a few words is unreliable, so a language that the metadata declares wins over it, and without
    `languages` nothing is dropped. Lui & Baldwin, langid.py, ACL 2012 (97 languages, py3langid).
    """

    reads = ("text",)
    languages: tuple[str, ...] = ()
    """ISO 639 codes to keep, `en`; of a longer code (`en_GB`) the first piece is compared."""
    min_confidence: float = 0.5
    """A guess below it drops nothing. A declared language is not a guess."""
    meta_field: str = "language"
    """Where the metadata declares a language."""

    def build(self) -> Worker:
        identifier = _identifier()
        wanted = frozenset(_primary(code) for code in self.languages)

        def check(sample: Sample) -> Outcome:
            if sample.extension("text") is None:
                return sample
            guess, confidence = identifier.classify(text_of(sample))
            sample = sample.with_scores(language_confidence=float(confidence))
            sample = sample.with_meta(detected_language=guess)
            if not wanted:
                return sample
            listed = ", ".join(sorted(wanted))
            declared = sample.meta.get(self.meta_field)
            if isinstance(declared, str) and declared:
                if _primary(declared) in wanted:
                    return sample
                return Dropped(
                    sample, "language_not_wanted", f"declared {declared}, none of {listed}"
                )
            if guess in wanted or confidence < self.min_confidence:
                return sample
            detail = f"guessed {guess} ({confidence:.2f}), none of {listed}"
            return Dropped(sample, "language_not_wanted", detail)

        return check


def repair(text: str) -> str:
    r"""Return text as one line of visible characters in NFC.

    >>> repair("Tom &amp; Jerry\n and\t Spike")
    'Tom & Jerry and Spike'
    """
    # white space first: some control characters are separators, and part words
    fixed = " ".join(ftfy.fix_text(text, _FTFY).split())
    visible = "".join(char for char in fixed if not _is_removed(char))
    return unicodedata.normalize("NFC", " ".join(_DEBRIS.sub("", visible).split()))


def _is_removed(char: str) -> bool:
    """Whether a character is a control, a bidirectional or other format, a tag or no character."""
    if char in _JOINERS or char in _VISIBLE_FORMAT or (char.isascii() and char.isprintable()):
        return False
    if unicodedata.category(char) in ("Cc", "Cf", "Cs"):
        return True
    # U+FDD0 to U+FDEF and the last two of every plane are for ever no characters
    code = ord(char)
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


def _is_seen(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CZM"


def _primary(code: str) -> str:
    return re.split(r"[-_@.]", code, maxsplit=1)[0].lower()


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
