"""Captions as shards hold them: `txt`, UTF-8 in one normal form; and their token ids."""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

import ftfy
import numpy as np

from mmcore import storage
from mmcore.core.stage import Stage, Worker
from mmcore.encode.tokenizer import TOKENIZER_NAME, given_tokenizer
from mmcore.errors import ConfigError
from mmcore.media.array import array_bytes
from mmcore.media.text import text_of
from mmcore.sample import Json, Outcome, Sample, sha256_hex

TOKENIZER_STEP = "tokenizer"


@dataclass(frozen=True, kw_only=True)
class EncodeText(Stage):
    """Replace the text by UTF-8 in one form without byte order mark or line end at its end."""

    code_version: ClassVar[int] = 2

    reads = ("text",)
    form: Literal["NFC", "NFKC"] = "NFC"
    """NFKC also folds wide letters, ligatures and superscripts."""
    repair: bool = False
    """Repair what was decoded wrongly before (ftfy); `repair_caption` in `clean` does it too."""

    def build(self) -> Worker:
        repaired: Callable[[str], str] = ftfy.fix_text if self.repair else str

        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("text")
            if extension is None:
                return sample
            old = sample.data(extension)
            text = unicodedata.normalize(self.form, repaired(text_of(sample)))
            new = text.rstrip("\r\n").encode()
            if extension == "txt" and new == old:
                return sample
            return sample.without_part(extension).with_part("txt", new)

        return encode


@dataclass(frozen=True, kw_only=True)
class TokenIds(Stage):
    """Add the ids of a tokenizer, special tokens included: `ids.npy`, int32 [L]."""

    reads = ("text",)
    tokenizer: str = ""
    """A `tokenizer.json` of Hugging Face `tokenizers`. Its content counts, not where it lies.
    Nothing means that of the recipe's step `tokenizer`."""
    max_tokens: int = 512
    """Longer texts are cut, special tokens included."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"token_ids: max_tokens={self.max_tokens}. Use 1 or more.")

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.tokenizer else (TOKENIZER_STEP,)

    def placed(self, bases: Mapping[str, str]) -> Stage:
        if self.tokenizer:
            return self
        return replace(self, tokenizer=storage.join(bases[TOKENIZER_STEP], TOKENIZER_NAME))

    def identity(self) -> dict[str, Json]:
        """Return what decides the result; a given tokenizer by its hash."""
        if not self.tokenizer:
            return super().identity()  # the step's inputs say which one it is
        digest = sha256_hex(given_tokenizer(self.tokenizer)[0])
        return {**super().identity(), **asdict(self), "tokenizer": digest}

    def build(self) -> Worker:
        _, tokenizer = given_tokenizer(self.tokenizer)
        tokenizer.enable_truncation(self.max_tokens)

        def encode(sample: Sample) -> Outcome:
            if sample.extension("text") is None:
                return sample
            ids = np.array(tokenizer.encode(text_of(sample)).ids, np.int32)
            return sample.with_part("ids.npy", array_bytes(ids))

        return encode
