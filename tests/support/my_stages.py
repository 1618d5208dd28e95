"""Stages that a user brings, for recipes that name them by import path."""

from dataclasses import dataclass

from mmcore.core.stage import Stage, Worker
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class MaxChars(Stage):
    """Drop long captions."""

    reads = ("text",)
    max_chars: int

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            num_chars = len(sample.data("txt"))
            return Dropped(sample, "too_long") if num_chars > self.max_chars else sample

        return check


def not_a_class() -> None:
    """A recipe that names this is wrong."""
