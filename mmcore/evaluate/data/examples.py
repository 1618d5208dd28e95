"""The galleries of the report: which samples are in them, and what is seen and heard of each."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmcore.core.lineage import SHARD_STEP, bases_of
from mmcore.evaluate.data.losses import Chain, Example, find_rows
from mmcore.evaluate.data.previews import Shown, previews
from mmcore.evaluate.data.reservoir import Reservoir
from mmcore.sample import Sample

MAX_GROUPS = 24
"""Reasons of which examples are shown; of rarer ones there are the counts."""
MAX_MEDIA_BYTES = 4_500_000
"""Of all pictures and sounds together, before they are spelled as text, a third longer."""
_MAX_CHARS = 300
FULL = "left out, since the page is full"
_NOTHING = Shown()


@dataclass(frozen=True)
class Card:
    """A sample as the page shows it."""

    key: str
    original: str
    """What it was called at the source."""
    label: str
    language: str
    detail: str
    rule: str
    parts: tuple[tuple[str, int], ...]
    """(extension, bytes)."""
    shown: Shown = _NOTHING
    is_broken: bool = False

    @property
    def picture(self) -> str:
        """The picture as a data URI."""
        return _uri("image/webp", self.shown.picture)

    @property
    def sound(self) -> str:
        """The sound as a data URI."""
        return _uri("audio/flac", self.shown.sound)


@dataclass(frozen=True)
class Pair:
    """A sample that was left out, and the one that outlived it."""

    lost: Card
    survivor: Card | None
    """None where its rows are gone."""
    twin: str


@dataclass(frozen=True)
class Galleries:
    """What is there to look at."""

    kept: Mapping[str, Sequence[Card]]
    """By split."""
    lost: Mapping[str, Sequence[Card]]
    """By `Loss.group`."""
    pairs: Mapping[str, Sequence[Pair]]
    """By `Loss.group`."""

    def cards(self) -> list[Card]:
        """Return every card of every gallery."""
        pairs = [pair for group in self.pairs.values() for pair in group]
        found = [
            card for shelf in (self.kept, self.lost) for cards in shelf.values() for card in cards
        ]
        survivors = [pair.survivor for pair in pairs if pair.survivor]
        return [*found, *(pair.lost for pair in pairs), *survivors]


def galleries(
    kept: Reservoir[Sample],
    lost: Reservoir[Example],
    groups: Sequence[str],
    chains: Sequence[Chain],
    *,
    dataset_url: str,
    source_url: str | None,
    hidden: frozenset[str],
) -> Galleries:
    """Make galleries of what was kept, what was left out for reasons in `groups`, and twins."""
    bases = [
        {**bases_of(chain), **({"source": source_url} if source_url else {})} for chain in chains
    ]
    of_shard = {SHARD_STEP: dataset_url}
    wanted: list[tuple[Card, Sample, Mapping[str, str]]] = []

    def note(card: Card, sample: Sample, where: Mapping[str, str]) -> int:
        wanted.append((card, sample, where))
        return len(wanted) - 1

    def note_example(example: Example) -> int:
        sample, row = example.row.sample, example.row
        card = replace(
            card_of(sample),
            detail=_clipped(row.detail),
            rule=row.rule,
            is_broken=row.status == "quarantined",
        )
        return note(card, sample, bases[example.increment])

    kept_at = {
        split: [note(card_of(sample), sample, of_shard) for sample in kept.of(split)]
        for split in kept.groups
    }
    shown = [group for group in groups if lost.of(group)][:MAX_GROUPS]
    lost_at: dict[str, list[int]] = {}
    pairs_at: dict[str, list[tuple[int, int | None, str]]] = {}
    for group in shown:
        examples = lost.of(group)
        twins = {one.row.twin for one in examples} - {""}
        if not twins:
            lost_at[group] = [note_example(one) for one in examples]
            continue
        survivors = find_rows(chains, examples[0].loss.step, frozenset(twins - hidden))
        pairs_at[group] = [
            (
                note_example(one),
                note_example(survivors[one.row.twin]) if one.row.twin in survivors else None,
                one.row.twin,
            )
            for one in examples
        ]
    cards = _with_previews(wanted)
    return Galleries(
        kept={split: [cards[at] for at in places] for split, places in kept_at.items()},
        lost={group: [cards[at] for at in places] for group, places in lost_at.items()},
        pairs={
            group: [
                Pair(cards[lost], None if survivor is None else cards[survivor], twin)
                for lost, survivor, twin in places
            ]
            for group, places in pairs_at.items()
        },
    )


def card_of(sample: Sample) -> Card:
    """Return what is known of a sample without its bytes."""
    meta = sample.meta
    sizes = [(name, part.ref.num_bytes) for name, part in sample.parts.items() if part.ref]
    return Card(
        key=sample.key,
        original=_clipped(meta.get("original_key")),
        label=_clipped(meta.get("label")),
        language=_clipped(meta.get("language")),
        detail="",
        rule="",
        parts=tuple(sorted(sizes)),
    )


def _with_previews(wanted: Sequence[tuple[Card, Sample, Mapping[str, str]]]) -> list[Card]:
    """Return the cards with previews, as many as fit; of what is broken there is none."""
    whole = [number for number, (card, _, _) in enumerate(wanted) if not card.is_broken]
    made = previews((wanted[number][1], wanted[number][2]) for number in whole)
    cards = [card for card, _, _ in wanted]
    total = 0
    for number, shown in zip(whole, made, strict=True):
        num_bytes = len(shown.picture) + len(shown.sound)
        if total + num_bytes > MAX_MEDIA_BYTES:
            lacks = ", ".join(filter(None, [shown.lacks, FULL]))
            shown = Shown(words=shown.words, lacks=lacks)
        else:
            total += num_bytes
        cards[number] = replace(cards[number], shown=shown)
    return cards


def _clipped(value: object) -> str:
    """Return a value as text that a page has room for; nothing for what is not there."""
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]} ..."


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}" if data else ""
