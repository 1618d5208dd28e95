"""What was planted in a generated corpus: how much to ask for, and what came of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from mmcore import storage
from mmcore.errors import ConfigError, IntegrityError

ANSWERS_NAME = ".answers.json"
"""Hidden, so that it is no part of the corpus."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The faults of a corpus, each as a fraction of all samples, rounded down."""

    exact_duplicate: float = 0.02
    """Every part is that of another sample."""
    duplicate_picture: float = 0.02
    """The picture is that of another sample, byte for byte; caption and sound are new."""
    near_duplicate: float = 0.02
    """The picture is another sample's, resized and encoded again."""
    broken_picture: float = 0.02
    """Cut in the middle, an HTML page, or no byte at all."""
    small_picture: float = 0.02
    """12 x 12 pixels."""
    empty_caption: float = 0.02
    """Nothing, or white space."""
    mojibake_caption: float = 0.02
    """UTF-8 that was taken for Windows-1252; the detail is the true caption."""
    truncated_sound: float = 0.02
    """The first 40 % of the bytes of a FLAC or WAV file."""
    silent_sound: float = 0.02
    missing_sound: float = 0.02
    key_taken: float = 0.005
    """Its name differs from another sample's in nothing but case: the later one loses."""
    cropped_picture: float = 0.01
    """The picture is another sample's without one pixel at each edge, encoded again."""
    reencoded_picture: float = 0.01
    """The picture is another sample's in the same size, encoded again with less quality."""
    paraphrased_caption: float = 0.01
    """The caption is another sample's, which is long, with two words changed; the rest is new."""

    def __post_init__(self) -> None:
        values = [getattr(self, item.name) for item in fields(self)]
        if min(values) < 0 or sum(values) > 0.5:
            raise ConfigError(
                f"the planted faults add up to {sum(values):g} of all samples, and one is "
                f"{min(values):g}. Use fractions from 0 up that add up to 0.5 or less, so that "
                "every duplicate finds a sample without fault to copy."
            )


@dataclass(frozen=True)
class Answer:
    """One planted fault."""

    original_key: str
    """The path without extension."""
    twin: str = ""
    """The original key of the sample that it was made from, for duplicates and taken keys."""
    detail: str = ""


@dataclass(frozen=True)
class KnownAnswers:
    """What is in a generated corpus."""

    num_samples: int
    """With the planted ones."""
    seed: int
    num_clean: int
    """Samples in which nothing was planted."""
    planted: Mapping[str, tuple[Answer, ...]]
    """By fault; sorted by original key."""

    def __str__(self) -> str:
        faults = ", ".join(f"{fault} {len(found)}" for fault, found in self.planted.items())
        return (
            f"{self.num_samples} samples, {self.num_clean} of them without fault. "
            f"Planted: {faults}. Which ones: {ANSWERS_NAME} in the corpus."
        )

    def to_json(self) -> bytes:
        """Return the answers as deterministic, readable JSON."""
        value = {"format": "mm.answers", "format_version": 1, **asdict(self)}
        return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def read_answers(destination: str) -> KnownAnswers:
    """Return the known answers of a generated corpus."""
    url = storage.join(destination, ANSWERS_NAME)
    try:
        value = json.loads(storage.read(url))
        if value.pop("format") != "mm.answers" or value.pop("format_version") != 1:
            raise ValueError("another format or version")
        found = value.pop("planted")
        answers = {fault: tuple(Answer(**one) for one in many) for fault, many in found.items()}
        return KnownAnswers(**value, planted=answers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{url} holds no answers: {error}. Make the corpus anew.") from error
