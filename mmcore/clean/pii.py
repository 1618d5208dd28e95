"""What names a person in a caption: found, counted, masked."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from mmcore.clean.captions import captions_of, with_caption
from mmcore.clean.personal import KINDS, PersonalKind, find_personal, mask_personal
from mmcore.core.stage import Stage, Worker
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class MaskPii(Stage):
    """Replace what names a person by what it is: `[EMAIL]`, `[PHONE]`, `[CARD]`, `[IBAN]`,
    `[NATIONAL_ID]`.

    In every caption of the sample and in some of its metadata. Stores a score for each kind,
    pii_email and so on: how many were found. By patterns and check digits; names and postal
    addresses are not looked for.
    """

    reads = ("text",)
    rewrites = ("text",)
    kinds: tuple[PersonalKind, ...] = KINDS
    then: Literal["mask", "drop", "count"] = "mask"
    """`drop` refuses samples in which anything was found, as `caption_pii`; `count` changes
    nothing."""
    meta_fields: tuple[str, ...] = ("caption", "caption_group", "description", "title")
    """Metadata that repeats the caption, where it is there and is text."""

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            sample, texts = captions_of(sample)
            masked = sample
            counts: Counter[str] = Counter()
            for extension, text in texts.items():
                found = find_personal(text, self.kinds)
                counts.update(one.kind for one in found)
                if found:
                    masked = with_caption(masked, extension, mask_personal(text, found))
            for name in self.meta_fields:
                value = sample.meta.get(name)
                if isinstance(value, str) and (found := find_personal(value, self.kinds)):
                    # what repeats the caption does not count twice
                    counts |= Counter(one.kind for one in found)
                    masked = masked.with_meta(**{name: mask_personal(value, found)})
            scores = {f"pii_{kind}": float(counts[kind]) for kind in self.kinds}
            if counts and self.then == "drop":
                said = ", ".join(f"{kind} {num}" for kind, num in sorted(counts.items()))
                return Dropped(sample.with_scores(**scores), "caption_pii", said)
            return (masked if self.then == "mask" else sample).with_scores(**scores)

        return check
