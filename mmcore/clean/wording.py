"""Stages that look at how a caption is worded: its length, what it repeats, what it is made of.

Measured on the first caption of a sample. Put them behind `repair_caption`: what is measured is
forgotten when a caption changes.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from mmcore.clean.captions import captions_of, with_caption
from mmcore.core.measured import Measured
from mmcore.core.stage import Stage, Worker
from mmcore.media.text import text_of
from mmcore.sample import Dropped, Outcome, Sample

# A word is what stands between spaces, from its first letter or digit to its last; of scripts that
# part no words, every letter
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(
    f"(?=\\w)[{_SPACELESS}]|[^\\W_{_SPACELESS}](?:[^\\s{_SPACELESS}]*[^\\W_{_SPACELESS}])?"
)
_WORDS_IN_A_ROW = 3
_CHARS_IN_A_ROW = 10
# A heart and a full stop, or a year, is a caption
_FEW = 4


@dataclass(frozen=True, kw_only=True)
class MeasureText(Measured):
    """Measure everything cheap about a caption at once; drop nothing.

    Stores caption_chars, caption_words, caption_repeated_words, caption_repeated_chars,
    caption_repeated_lines, caption_symbols, caption_digits, caption_symbol_fraction and
    caption_digit_fraction, so that the stages after it only compare.
    """

    reads = ("text",)
    stores = (
        "caption_chars",
        "caption_words",
        "caption_repeated_words",
        "caption_repeated_chars",
        "caption_repeated_lines",
        "caption_symbols",
        "caption_digits",
        "caption_symbol_fraction",
        "caption_digit_fraction",
    )

    def measure(self, sample: Sample) -> Sample:
        for stage in (CaptionLength(), CaptionRepetition(), CaptionSymbols()):
            sample = sample if stage.is_measured(sample) else stage.measure(sample)
        return sample


@dataclass(frozen=True, kw_only=True)
class CaptionLength(Measured):
    """Drop captions that are too short or too long; store caption_chars and caption_words.

    Of Chinese, Japanese, Thai, Lao, Khmer and Burmese every character counts as a word.
    """

    reads = ("text",)
    stores = ("caption_chars", "caption_words")
    limits = ("min_chars", "max_chars", "min_words", "max_words")
    min_chars: int = 1
    max_chars: int = 2_000
    min_words: int = 1
    max_words: int = 400

    def measure(self, sample: Sample) -> Sample:
        text = text_of(sample)
        words = float(len(_WORD.findall(text)))
        return sample.with_scores(caption_chars=float(len(text)), caption_words=words)

    def decide(self, sample: Sample) -> Dropped | None:
        limits = (("characters", "caption_chars", self.min_chars, self.max_chars),
                  ("words", "caption_words", self.min_words, self.max_words))  # fmt: skip
        for unit, score, least, most in limits:
            found = int(sample.scores[score])
            if found < least:
                return Dropped(sample, "caption_too_short", f"{found} {unit} < {least}")
            if found > most:
                return Dropped(sample, "caption_too_long", f"{found} {unit} > {most}")
        return None


@dataclass(frozen=True, kw_only=True)
class CaptionRepetition(Measured):
    """Drop captions that say the same again and again.

    Stores three shares, 0 to 1, of what was there before: caption_repeated_words (runs of three
    words), caption_repeated_chars (runs of ten characters, for scripts without spaces),
    caption_repeated_lines. After Rae et al., Scaling Language Models (Gopher), 2021, appendix A.1.
    """

    reads = ("text",)
    stores = ("caption_repeated_words", "caption_repeated_chars", "caption_repeated_lines")
    limits = ("max_words", "max_chars", "max_lines")
    max_words: float = 0.7
    """Of a cry said three times, "Fire! Fire! Fire!", less is repeated."""
    max_chars: float = 0.7
    max_lines: float = 0.5

    def measure(self, sample: Sample) -> Sample:
        text = text_of(sample)
        words = [word.casefold() for word in _WORD.findall(text)]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        rows_of_words = list(zip(*(words[i:] for i in range(_WORDS_IN_A_ROW)), strict=False))
        last = len(text) - _CHARS_IN_A_ROW
        rows_of_chars = [text[i : i + _CHARS_IN_A_ROW] for i in range(last + 1)]
        return sample.with_scores(
            caption_repeated_words=_repeated(rows_of_words),
            caption_repeated_chars=_repeated(rows_of_chars),
            caption_repeated_lines=_repeated(lines),
        )

    def decide(self, sample: Sample) -> Dropped | None:
        for unit, limit in (
            ("words", self.max_words),
            ("chars", self.max_chars),
            ("lines", self.max_lines),
        ):
            found = sample.scores[f"caption_repeated_{unit}"]
            if found > limit:
                detail = f"{found:.2f} of its {unit} repeated > {limit:g}"
                return Dropped(sample, "caption_repetitive", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class CaptionSymbols(Measured):
    """Drop captions of signs or digits rather than words.

    Stores caption_symbols and caption_digits, how many of the characters that are seen are neither
    letter nor digit, and how many are digits; and what share they are: caption_symbol_fraction,
    caption_digit_fraction.
    """

    reads = ("text",)
    stores = (
        "caption_symbols",
        "caption_digits",
        "caption_symbol_fraction",
        "caption_digit_fraction",
    )
    limits = ("max_symbols", "max_digits")
    max_symbols: float = 0.5
    max_digits: float = 0.8

    def measure(self, sample: Sample) -> Sample:
        kinds = [unicodedata.category(char)[0] for char in text_of(sample)]
        seen = max(1, sum(kind not in "ZC" for kind in kinds))
        symbols, digits = sum(kind in "PS" for kind in kinds), kinds.count("N")
        return sample.with_scores(
            caption_symbols=float(symbols),
            caption_digits=float(digits),
            caption_symbol_fraction=symbols / seen,
            caption_digit_fraction=digits / seen,
        )

    def decide(self, sample: Sample) -> Dropped | None:
        for kind, limit in (("symbol", self.max_symbols), ("digit", self.max_digits)):
            count, share = (sample.scores[f"caption_{kind}{end}"] for end in ("s", "_fraction"))
            if share > limit and count > _FEW:
                detail = f"{share:.2f} of its characters > {limit:g}"
                return Dropped(sample, f"caption_{kind}s", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class RemoveRepeatedLines(Stage):
    """Write captions back without lines that stand above already; store caption_removed_lines.

    Menus and footers of pages come twice. Lines are compared without the white space around them;
    put it before `repair_caption`, which makes one line of all unless it keeps them.
    """

    reads = ("text",)
    rewrites = ("text",)

    def build(self) -> Worker:
        def remove(sample: Sample) -> Outcome:
            sample, texts = captions_of(sample)
            removed = 0
            for extension, text in texts.items():
                lines = text.splitlines()
                seen: set[str] = set()
                kept = [line for line in lines if _is_new(line.strip(), seen)]
                if len(kept) < len(lines):
                    removed += len(lines) - len(kept)
                    sample = with_caption(sample, extension, "\n".join(kept))
            return sample.with_scores(caption_removed_lines=float(removed)) if texts else sample

        return remove


def _is_new(line: str, seen: set[str]) -> bool:
    """Return whether a line is empty or was not seen before, and remember it."""
    if line in seen:
        return False
    if line:
        seen.add(line)
    return True


def _repeated(found: Sequence[object]) -> float:
    return 1.0 - len(set(found)) / len(found) if found else 0.0
