"""Stages that read captions. Samples without one pass through; see `RequireParts`."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import ftfy
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from mmcore.clean.captions import captions_of, with_caption
from mmcore.core.measured import Measured, is_optional, without_bad_part
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
# Quotes and wide letters are what the writer chose; control characters and normal form are seen to
# below, more thoroughly
_FTFY = ftfy.TextFixerConfig(
    uncurl_quotes=False,
    fix_character_width=False,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)
# Marks on one letter (Unicode Annex 15, Stream-Safe Text Format). No language needs more, and
# normalizing takes time with the square of their number: hours for a megabyte of them
_MAX_MARKS = 30


@dataclass(frozen=True, kw_only=True)
class RepairCaption(Stage):
    """Repair every caption of a sample and write it back: one line of visible text in NFC.

    Mojibake and HTML entities are undone (ftfy); control, bidirectional, tag and other invisible
    characters go, joiners stay; runs of white space become one space. Drops `caption_empty` and
    `caption_too_long`; of several captions only those are left out. Stores the score
    caption_chars.
    """

    code_version = 2
    reads = ("text",)
    rewrites = ("text",)
    max_chars: int = 2_000
    """Of the repaired caption. Longer ones are pages, not captions: cutting would keep a part
    that may say nothing of the picture."""
    keep_lines: bool = False
    """Repair line by line and leave out empty ones, for texts that are more than a caption."""

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            sample, texts = captions_of(sample)
            refused = {}
            for extension, text in texts.items():
                caption = repair(text, keep_lines=self.keep_lines)
                num_bytes = len(sample.data(extension))
                sample = with_caption(sample, extension, caption)
                reason, detail = self._refuse(caption, num_bytes)
                if reason:
                    refused[extension] = (reason, detail)
            if len(refused) == len(texts) > 0 and not is_optional(sample, "text"):
                return Dropped(_with_chars(sample), *next(iter(refused.values())))
            for extension, (reason, detail) in refused.items():
                sample = without_bad_part(sample, extension, reason, detail)
            return _with_chars(sample)

        return check

    def _refuse(self, caption: str, num_bytes: int) -> tuple[str, str]:
        if not any(_is_seen(char) for char in caption):
            return "caption_empty", f"{num_bytes} bytes, nothing to read"
        if len(caption) > self.max_chars:
            return "caption_too_long", f"{len(caption)} characters > {self.max_chars}"
        return "", ""


@dataclass(frozen=True, kw_only=True)
class CaptionLanguage(Measured):
    """Guess the language of a caption; drop `language_not_wanted` where languages are given.

    Stores the score language_confidence (0 to 1) and the metadata detected_language. A guess from
    a few words is unreliable, so a language that the metadata declares wins over it, and without
    `languages` nothing is dropped. Lui & Baldwin, langid.py, ACL 2012 (97 languages, py3langid).
    """

    reads = ("text",)
    stores = ("language_confidence",)
    stores_meta = ("detected_language",)
    limits = ("languages", "min_confidence", "meta_field")
    languages: tuple[str, ...] = ()
    """ISO 639 codes to keep, `en`; of a longer code (`en_GB`) the first piece is compared."""
    min_confidence: float = 0.5
    """A guess below it drops nothing. A declared language is not a guess."""
    meta_field: str = "language"
    """Where the metadata declares a language."""

    def measure(self, sample: Sample) -> Sample:
        guess, confidence = _identifier().classify(text_of(sample))
        sample = sample.with_scores(language_confidence=float(confidence))
        return sample.with_meta(detected_language=guess)

    def decide(self, sample: Sample) -> Dropped | None:
        wanted = {_primary(code) for code in self.languages}
        if not wanted:
            return None
        listed = ", ".join(sorted(wanted))
        declared = sample.meta.get(self.meta_field)
        if isinstance(declared, str) and declared:
            if _primary(declared) in wanted:
                return None
            detail = f"declared {declared}, none of {listed}"
            return Dropped(sample, "language_not_wanted", detail)
        guess = sample.meta["detected_language"]
        confidence = sample.scores["language_confidence"]
        if guess in wanted or confidence < self.min_confidence:
            return None
        detail = f"guessed {guess} ({confidence:.2f}), none of {listed}"
        return Dropped(sample, "language_not_wanted", detail)


def repair(text: str, *, keep_lines: bool = False) -> str:
    r"""Return text as one line, or as lines, of visible characters in NFC.

    >>> repair("Tom &amp; Jerry\n and\t Spike")
    'Tom & Jerry and Spike'
    """
    if keep_lines:
        lines = [repair(line) for line in text.splitlines()]
        return "\n".join(line for line in lines if line)
    # white space first: some control characters are separators, and part words
    fixed = " ".join(ftfy.fix_text(text, _FTFY).split())
    if fixed.isascii() and fixed.isprintable():
        return fixed
    visible = "".join(char for char in fixed if not _is_removed(char))
    whole = " ".join(_DEBRIS.sub("", visible).split())
    return unicodedata.normalize("NFC", _without_stacks(whole))


def _without_stacks(text: str) -> str:
    """Return text with no more marks on a letter than any script has."""
    if text.isascii():
        return text
    kept = []
    num_marks = 0
    for char in text:
        num_marks = num_marks + 1 if unicodedata.combining(char) else 0
        if num_marks <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def _with_chars(sample: Sample) -> Sample:
    extension = sample.extension("text")
    if extension is None:
        return sample
    return sample.with_scores(caption_chars=float(len(text_of(sample))))


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
