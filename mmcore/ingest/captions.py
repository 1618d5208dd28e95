"""Captions in several languages: one sample with all of them, or one for each."""

import re
from collections.abc import Iterator
from dataclasses import replace

from mmcore.sample import Outcome, Sample, modality_of

EXPANDED_FROM = "expanded_from"
"""The metadata that samples of one origin have in common: the key that each would have had."""
UNDETERMINED = "und"

# BCP 47, roughly: a language, and what narrows it down
_TAG = re.compile(r"[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*", re.IGNORECASE)


def language_tag(extension: str) -> str:
    """Return the language that an extension names before its last piece, or an empty string.

    >>> language_tag("pt-BR.txt"), language_tag("txt"), language_tag("speech.wav")
    ('pt-BR', '', '')
    """
    tag = extension.rpartition(".")[0].rpartition(".")[2]
    return tag if modality_of(extension) == "text" and _TAG.fullmatch(tag) else ""


def one_per_caption(outcome: Outcome) -> Iterator[Outcome]:
    """Yield a sample for each caption of one that has captions by language: `en.txt`, `fr.txt`.

    Each has the other parts, its caption as `txt`, and the key with the language behind it. What
    has no such caption, and what was not kept, stays as it is.
    """
    if not isinstance(outcome, Sample) or not any(map(language_tag, outcome.parts)):
        yield outcome
        return
    captions = [name for name in sorted(outcome.parts) if modality_of(name) == "text"]
    others = {name: part for name, part in outcome.parts.items() if name not in captions}
    group = {"caption_group": outcome.key} if not outcome.meta.get("caption_group") else {}
    taken: set[str] = set()
    for name in captions:
        declared = str(outcome.meta.get("language") or UNDETERMINED)
        language = language_tag(name).replace("_", "-") or declared
        key = _free(f"{outcome.key}-{_as_key(language)}", taken)
        sample = replace(outcome, key=key, parts={**others, "txt": outcome.parts[name]}, scratch={})
        yield sample.with_meta(**group, language=language, expanded_from=outcome.key)


def _as_key(language: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", language.lower()).strip("-") or UNDETERMINED


def _free(key: str, taken: set[str]) -> str:
    """Return the key, with a number where there are two captions of a language."""
    numbered, number = key, 1
    while numbered in taken:
        number += 1
        numbered = f"{key}-{number}"
    taken.add(numbered)
    return numbered
