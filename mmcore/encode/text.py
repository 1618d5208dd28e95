"""Captions as shards hold them: `txt`, UTF-8 in NFC."""

import unicodedata
from dataclasses import dataclass

from mmcore.core.stage import Stage, Worker
from mmcore.media.text import text_of
from mmcore.sample import Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class EncodeText(Stage):
    """Replace the text by UTF-8 in NFC without byte order mark or line end at its end."""

    reads = ("text",)

    def build(self) -> Worker:
        return _encode


def _encode(sample: Sample) -> Outcome:
    extension = sample.extension("text")
    if extension is None:
        return sample
    old = sample.data(extension)
    new = unicodedata.normalize("NFC", text_of(sample)).rstrip("\r\n").encode()
    if extension == "txt" and new == old:
        return sample
    return sample.without_part(extension).with_part("txt", new)
