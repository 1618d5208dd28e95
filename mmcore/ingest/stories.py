"""Long captions of the generated corpus: what happens around a picture, and the same reworded."""

import numpy as np

_WHO = (
    "a gardener", "the old sailor", "my cousin", "one tired baker", "the young doctor",
    "an honest painter", "our neighbour", "some quiet traveller", "the village teacher",
    "a famous singer", "her grandmother", "the night watchman",
)  # fmt: skip
_VERBS = (
    "draws", "follows", "remembers", "carries", "borrows", "repairs", "describes", "counts",
    "washes", "collects", "admires", "measures",
)  # fmt: skip
_OTHER_VERBS = ("sketches", "inspects", "cleans", "copies", "watches", "hides")
_WHAT = (
    "a brass lantern", "three paper kites", "the broken clock", "seven smooth stones",
    "an empty basket", "some purple thread", "the longest ladder", "two wooden boats",
    "a heavy book", "the spare keys", "nine silver buttons", "an orange scarf",
)  # fmt: skip
_WHERE = (
    "behind the mill", "near a frozen lake", "under the railway bridge", "beside our school",
    "on a crowded ferry", "inside the greenhouse", "along the river", "at the corner shop",
    "across wide fields", "above the harbour", "between two towers", "around the market",
)  # fmt: skip
_WHEN = (
    "before sunrise", "on Tuesday morning", "during heavy rain", "after the concert",
    "every other winter", "until late evening", "while snow falls", "since last April",
    "without any hurry", "for half an hour", "with great care", "once a month",
)  # fmt: skip
_NUM_SENTENCES = 6


def story(rng: np.random.Generator) -> str:
    """Return six sentences, about sixty words; two stories share next to no runs of words."""
    kinds = (_WHO, _VERBS, _WHAT, _WHERE, _WHEN)
    orders = [rng.permutation(len(kind))[:_NUM_SENTENCES] for kind in kinds]
    sentences = (
        " ".join(kind[int(order[i])] for kind, order in zip(kinds, orders, strict=True))
        for i in range(_NUM_SENTENCES)
    )
    return ". ".join(sentences)


def reworded(text: str, rng: np.random.Generator) -> str:
    """Return a text with two verbs changed, another case and other punctuation."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if word in _VERBS]
    for place, verb in zip(
        rng.permutation(places)[:2], rng.permutation(_OTHER_VERBS), strict=False
    ):
        words[int(place)] = str(verb)
    return " ".join(words).upper().replace(". ", "; ") + "!"
