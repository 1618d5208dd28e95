"""A stage does one thing to one sample; a rule decides over a whole corpus.

Both are frozen specs: their fields are their configuration, and the configuration together with
`code_version` is their identity. The heavy part is built where it runs, once per worker.

    @dataclass(frozen=True, kw_only=True)
    class MinSide(Stage):
        '''Drop pictures that are too small to learn from.'''

        reads = ("image",)
        min_side: int = 32

        def build(self) -> Worker:
            def check(sample: Sample) -> Outcome: ...
            return check
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

from mmcore.core.columns import Corpus, Flags, Want
from mmcore.core.executor import ONE_CPU, Resources
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_runs import indexes
from mmcore.sample import Json, Outcome, Sample

Worker = Callable[[Sample], Outcome]
BatchWorker = Callable[[Sequence[Sample]], Sequence[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Component:
    """What a stage and a rule have in common: a configuration that is an identity."""

    # pydantic reads this when a recipe is checked: an unknown key is an error, with a suggestion
    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": False}

    code_version: ClassVar[int] = 1
    """Raise it when a change of the code changes what comes out."""

    def identity(self) -> dict[str, Json]:
        """Return what decides the result: the class, the version of its code, its fields."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"stage": name, "code_version": self.code_version, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Stage(Component):
    """Something to be done to every sample on its own."""

    reads: ClassVar[tuple[str, ...]] = ()
    """The modalities whose bytes it looks at: `image`, `text`, `audio`, `video`. None by default:
    metadata alone is cheap."""
    rewrites: ClassVar[tuple[str, ...] | None] = None
    """The modalities whose parts it may replace; None stands for any. Scores that were measured
    before it of a part that was replaced are not taken over by a later run."""
    is_of_part: ClassVar[bool] = False
    """Whether it replaces the first part of the one modality that it reads, or leaves it, by the
    bytes and the extension of that part alone. Such a stage can work ahead (`core/ahead.py`)."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the steps, besides the one its samples come from, whose artifacts it reads."""
        return ()

    def placed(self, bases: Mapping[str, str]) -> "Stage":
        """Return the stage with the URLs of what it needs, before it is built."""
        return self

    def build(self) -> Worker:
        """Return the function that does it; models and tables are loaded here, once per worker.

        The function returns the sample (changed or not), or `Dropped`, or `Quarantined`, or raises
        `SampleError`, which quarantines. Any other exception is a bug or a broken machine: it ends
        the step.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BatchStage(Stage):
    """Something to be done to many samples at once: what a model is asked.

    `build` gives the half that looks at bytes from outside, sample by sample, in the decoder
    process. It leaves what the other half needs as parts named `prepared_as(...)`.
    """

    batch_size: int = 32
    """Samples at a time. Which ones come together follows from the input alone."""

    @property
    def resources(self) -> Resources:
        """Return what a worker occupies that does this."""
        return ONE_CPU

    def build_batch(self) -> BatchWorker:
        """Return the function that does it; called once per worker, where models are loaded.

        It is given up to `batch_size` samples and returns one outcome for each, in their order,
        `without_prepared`.
        """
        raise NotImplementedError


_PREPARED = "prepared."


def prepared_as(what: str) -> str:
    """Return the name of a part that lives between the two halves of a stage alone.

    >>> prepared_as("image.npy")
    'prepared.image.npy'
    """
    return _PREPARED + what


def without_prepared(sample: Sample) -> Sample:
    """Return a sample as it goes on: without what was prepared."""
    for extension in [name for name in sample.parts if name.startswith(_PREPARED)]:
        sample = sample.without_part(extension)
    return sample


class Verdict(Protocol):
    """What a rule decided: a few numbers per sample, from which outcomes are made one at a time."""

    @property
    def kept(self) -> Flags:
        """Which rows of the corpus it keeps."""
        ...

    def outcome(self, row: int, sample: Sample) -> Outcome:
        """Return what becomes of the sample of a row."""
        ...


@dataclass(frozen=True, kw_only=True)
class CorpusRule(Component):
    """Something that can only be decided with every sample in view: duplicates, splits.

    It sees columns (`core/columns.py`), a row per sample in the order of keys, and never bytes.
    What it writes on its shelf is what it knows when the dataset grows: what was decided stands,
    and the newcomers fit in with it, at the cost of the newcomers.
    """

    def wants(self) -> tuple[Want, ...]:
        """Return the columns that it compares."""
        raise NotImplementedError

    def decide(self, corpus: Corpus, shelf: Shelf) -> Verdict:
        """Decide on every row, in view of what earlier increments left on the shelf."""
        raise NotImplementedError

    def forget(self, gone: Mapping[str, str], shelf: Shelf) -> None:
        """Take off the shelf what counts no more, before anything is decided: reasons by key.

        Rows of indexes (`core/sorted_runs.py`) whose label begins with one of the keys are passed
        over from here on. A rule that keeps other things of single samples extends this.
        """
        for index in indexes(shelf):
            index.forget(gone)

    def remember(self, corpus: Corpus, verdict: Verdict, kept: Flags, shelf: Shelf) -> None:
        """Put on the shelf what increments to come must know of the rows that the step kept.

        `kept` leaves out what rules after this one dropped.
        """


def rule_name(component: Component) -> str:
    """Return the short name of a stage or rule, as recipes and reports spell it.

    >>> rule_name(MinSide())  # doctest: +SKIP
    'min_side'
    """
    return class_rule(type(component).__name__)


def class_rule(name: str) -> str:
    """Return the short name of a class, whatever module it is named in.

    >>> class_rule("mmcore.clean.image.MinSide")
    'min_side'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
