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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from mmcore.sample import Json, Outcome, Sample

Worker = Callable[[Sample], Outcome]


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

    def build(self) -> Worker:
        """Return the function that does it; models and tables are loaded here, once per worker.

        The function returns the sample (changed or not), or `Dropped`, or `Quarantined`, or raises
        `SampleError`, which quarantines. Any other exception is a bug or a broken machine: it ends
        the step.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class CorpusRule(Component):
    """Something that can only be decided with every sample in view: duplicates, splits.

    It sees keys, references, metadata and scores; never bytes.
    """

    remembers_what_changed: ClassVar[bool] = False
    """Whether `known` has samples as they were before they changed as well: for rules whose word
    on a sample stands whatever becomes of it."""

    def decide(self, samples: Sequence[Sample], known: Sequence[Sample] = ()) -> Iterator[Outcome]:
        """Yield one outcome per sample, in any order, whatever the order of the input.

        `known` are those that the rule kept in earlier increments: what was decided stands, and
        the newcomers fit in with it.
        """
        raise NotImplementedError


def rule_name(component: Component) -> str:
    """Return the short name of a stage or rule, as recipes and reports spell it.

    >>> rule_name(MinSide())  # doctest: +SKIP
    'min_side'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(component).__name__).lower()
